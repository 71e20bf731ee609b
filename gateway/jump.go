package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/splice"
	"github.com/stagedoor/stagedoor/tunnel"
)

// jumpPort is the port that a task seems to have: a direct-tcpip channel to it
// leads end to end to the agent.
const jumpPort = 22

// jumpLinger is how long one end of a jump may go on after the other has closed.
const jumpLinger = 10 * time.Second

// notOpen is all that a guest learns of a task that it cannot jump to: whether
// there is none, or its host is gone, or the key is not let in.
func (g *guest) notOpen() error {
	return &ssh.OpenChannelError{Reason: ssh.Prohibited,
		Message: "no task of this name is open to your key: its job may not have started yet, or has ended; " + g.otherKey()}
}

// otherKey is for guests with several keys: the first one that any task lets in
// has signed in, unless ssh names the task.
func (g *guest) otherKey() string {
	return fmt.Sprintf("you signed in with %s; if another key opens it: ssh -J TASK@%s TASK",
		g.by(), g.settings.jumpHost())
}

var errOnlyTasks = &ssh.OpenChannelError{Reason: ssh.Prohibited,
	Message: "only port 22 of a task can be reached through this gateway"}

// directTCPIP is the payload of a direct-tcpip channel (RFC 4254 section 7.2).
type directTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// divert says which channels of a guest are jumps, and refuses those that it may
// not open before the host is dialled for them.
func (s *Server) divert(g *guest, typ string, extra []byte) (splice.ServeFunc, error) {
	task, isJump, err := g.jumpTarget(typ, extra)
	if err == nil && !isJump {
		err = auth.AllowChannel(g.perms(), auth.Guest, typ, extra)
	}
	if err != nil {
		g.refused("refused a channel", typ, splice.Guest, err)
		return nil, err
	}
	if !isJump {
		return nil, nil
	}
	return func(ctx context.Context, nc ssh.NewChannel) { s.jump(ctx, g, task, nc) }, nil
}

// jumpTarget is the task that a channel leads to end to end. A guest of a task
// may jump there; all other targets are in its host's network. One who signed in
// by a name that was no task's may jump to any.
func (g *guest) jumpTarget(typ string, extra []byte) (task auth.TaskID, isJump bool, err error) {
	if typ != "direct-tcpip" {
		return "", false, nil
	}
	var to directTCPIP
	if err := ssh.Unmarshal(extra, &to); err != nil {
		return "", false, &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: "malformed direct-tcpip"}
	}
	task, ok := g.settings.taskNamed(to.Host)
	if g.present {
		return task, ok && task == g.task && to.Port == jumpPort, nil
	}
	switch {
	case to.Port != jumpPort:
		return "", false, errOnlyTasks
	case !ok:
		return "", false, g.notOpen()
	}
	return task, true, nil
}

// jump takes a guest's channel to the agent of a task as bytes: guest and agent
// speak SSH with each other in it, and the gateway has no part in that.
func (s *Server) jump(ctx context.Context, g *guest, task auth.TaskID, nc ssh.NewChannel) {
	if err := s.takeChannel(g); err != nil {
		g.refused("refused a jump", string(task), splice.Guest, err)
		reject(nc, err)
		return
	}
	defer s.giveChannel(g)
	stream, identity, leave, err := s.dialJump(ctx, g, task)
	if err != nil {
		s.metrics.jumps.WithLabelValues("refused").Inc()
		g.note("refused a jump", "to", string(task), "error", err)
		g.activity.jumpRefused(string(task), err)
		reject(nc, err)
		return
	}
	defer leave()
	defer stream.Close()
	ch, reqs, err := nc.Accept()
	if err != nil {
		return // the guest has gone
	}
	s.metrics.jumps.WithLabelValues("ok").Inc()
	r := &relay{s: s, owner: g.owner(), ch: ch, stream: stream}
	r.cut = sync.OnceFunc(r.close)
	closed := g.activity.jump(string(task), identity)
	defer func() { closed(r.fromGuest.Load(), r.fromHost.Load()) }()
	if s.blocks.ofName(identity) != nil { // meanwhile: who blocked it may not have seen the jump
		r.cut()
	}
	r.run(ctx, reqs, g.jumpLog(task, identity))
}

func (g *guest) jumpLog(task auth.TaskID, identity string) *slog.Logger {
	if g.present {
		return g.log
	}
	return g.log.With("task", string(task), "identity", identity)
}

// dialJump opens an end-to-end stream to a task's host, if the guest may enter
// the task as it is now. The identity is as who; leave gives back the place there.
func (s *Server) dialJump(ctx context.Context, g *guest, task auth.TaskID) (stream *tunnel.Stream, identity string, leave func(), err error) {
	defer func() {
		if err != nil && leave != nil {
			leave()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, g.settings.Limits.HostTimeout)
	defer cancel()
	grant := s.grantNaming(task, g.identity.Key)
	if identity, err = g.mayEnter(ctx, auth.Task{ID: task, Grant: grant}); err != nil {
		return nil, "", nil, err
	}
	c, _, err := s.dialTask(ctx, task, func(reg registration) (tunnel.StreamHeader, error) {
		if reg.grant != grant {
			if identity, err = g.mayEnter(ctx, auth.Task{ID: task, Grant: reg.grant}); err != nil {
				return tunnel.StreamHeader{}, err
			}
		}
		if leave == nil {
			if leave, err = s.takePlace(ctx, reg); err != nil {
				return tunnel.StreamHeader{}, err
			}
		}
		return tunnel.StreamHeader{Mode: tunnel.ModeEndToEnd, Remote: remoteOf(g.raw)}, nil
	})
	if _, gone := errors.AsType[noHostError](err); gone {
		return nil, "", leave, g.notOpen()
	}
	if err != nil {
		return nil, "", leave, err
	}
	return c.(*tunnel.Stream), identity, leave, nil
}

// mayEnter says as who a guest may enter a task.
func (g *guest) mayEnter(ctx context.Context, task auth.Task) (identity string, err error) {
	perms, err := g.settings.Guests.Authorize(ctx, g.identity, task)
	if err != nil || perms == nil {
		g.log.Debug("a key is not let in", "to", string(task.ID), "error", err)
		return "", g.notOpen()
	}
	return auth.IdentityName(perms), nil
}

// remoteOf is the address of a guest for the header of its stream.
func remoteOf(c *conn) string {
	if !c.remote.IsValid() {
		return ""
	}
	return c.remote.String()
}

// relay passes the bytes of one jump.
type relay struct {
	s      *Server
	owner  string // whose bytes these are
	ch     ssh.Channel
	stream *tunnel.Stream
	cut    func() // ends both sides, and does not wait

	fromGuest, fromHost atomic.Int64 // bytes passed on
}

// run passes bytes until both sides have had their say.
func (r *relay) run(ctx context.Context, reqs <-chan *ssh.Request, log *slog.Logger) {
	start := time.Now()
	log.Info("jump began")
	r.pass(ctx, reqs)
	log.Info("jump ended", "from_guest", r.fromGuest.Load(), "from_host", r.fromHost.Load(),
		"after", time.Since(start).Round(time.Millisecond))
}

// pass starts what reads either side, and waits for it. An end of one direction
// is passed on, and the other goes on: the guest may take as long as it likes
// unless the host has ended, as the host does by closing.
func (r *relay) pass(ctx context.Context, reqs <-chan *ssh.Request) {
	toHost, toGuest, closed := make(chan error, 1), make(chan error, 1), make(chan struct{})
	go func() { toHost <- r.rescued(r.toHost) }()
	go func() { toGuest <- r.rescued(r.toGuest) }()
	go func() {
		defer close(closed)
		ssh.DiscardRequests(reqs)
	}()
	defer r.cut()
	linger := time.NewTimer(time.Hour)
	linger.Stop()
	defer linger.Stop()
	for toHost != nil || toGuest != nil || closed != nil {
		select {
		case <-ctx.Done():
			return // what is left hangs in x/crypto, or ends now
		case <-linger.C:
			r.cut()
		case <-toHost:
			toHost = nil
		case err := <-toGuest:
			toGuest = nil
			linger.Reset(jumpLinger)
			if err != nil {
				r.cut()
			}
		case <-closed:
			closed = nil
			linger.Reset(jumpLinger)
		}
		if toHost == nil && (toGuest == nil || closed == nil) {
			r.cut()
		}
	}
}

// rescued keeps a defect in one direction from ending more than this jump.
func (r *relay) rescued(pass func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			r.cut()
			r.s.panicked("jump", v, debug.Stack())
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return pass()
}

// toHost passes on what the guest sends, until it has ended.
func (r *relay) toHost() error {
	err := r.s.budget.Copy(r.owner, r.stream, r.ch, r.count(&r.fromGuest, "guest"), r.cut)
	r.stream.CloseWrite()
	return err
}

// toGuest passes on what the host sends, until it has ended. The error is that
// of a tunnel which was lost.
func (r *relay) toGuest() error {
	err := r.s.budget.Copy(r.owner, r.ch, r.stream, r.count(&r.fromHost, "host"), r.cut)
	if err == nil {
		r.ch.CloseWrite()
	}
	return err
}

func (r *relay) count(n *atomic.Int64, from string) func(int) {
	total := r.s.metrics.jumpBytes.WithLabelValues(from)
	return func(moved int) {
		n.Add(int64(moved))
		total.Add(float64(moved))
	}
}

// close closes both sides, the channel on another goroutine: that waits for a
// transport which may be stalled.
func (r *relay) close() {
	r.stream.Close()
	go r.ch.Close()
}
