package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/splice"
)

// guest is a connection that has signed in.
type guest struct {
	id       string
	raw      *conn
	conn     *ssh.ServerConn
	user     string      // the name that it signed in by
	task     auth.TaskID // empty: it may only jump
	present  bool        // the task was registered: else the name may be a login, and the guest jump to other tasks
	identity auth.Identity
	entry    atomic.Pointer[entry] // may change until the host is reached
	settings *Settings
	log      *slog.Logger
	channels int // open ones; guarded by Server.mu
	refusals atomic.Int64
	proofs   int // of host keys, asked for; global requests come one by one
	activity *activity
	stay     stay
}

// entry is what a guest may do in its task, and by which grant.
type entry struct {
	grant *auth.Grant
	perms *ssh.Permissions
}

func (g *guest) perms() *ssh.Permissions { return g.entry.Load().perms }

// serveGuest signs a guest in on a connection of its own.
func (s *Server) serveGuest(nc net.Conn) {
	c, ok := s.enter(nc)
	if !ok {
		return
	}
	defer c.Close()
	s.serveSSH(c, c)
}

// serveSSH speaks SSH with a guest on nc, which is c itself or something that
// rides on it, such as a WebSocket. It returns when the guest is gone; the
// caller closes c.
func (s *Server) serveSSH(nc net.Conn, c *conn) {
	settings := s.settings.Load()
	start := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, settings.Limits.HandshakeTimeout)
	defer cancel()
	c.SetDeadline(start.Add(settings.Limits.HandshakeTimeout))
	a := &signIn{s: s, ctx: ctx, settings: settings, conn: c}
	verdict := c.judge()
	meter := splice.NewMeter(nc)
	sc, chans, reqs, err := ssh.NewServerConn(meter, a.config())
	waited := a.leaveWaiting != nil
	if waited {
		a.leaveWaiting()
	}
	if err != nil {
		a.refused(err)
		verdict()
		return
	}
	c.SetDeadline(time.Time{})
	c.leave()
	verdict()
	if !waited { // for a person
		s.metrics.handshake.Observe(time.Since(start).Seconds())
	}
	s.metrics.signIns.WithLabelValues("ok").Inc()

	g := newGuest(c, sc, settings)
	g.log = s.log.With(g.labels()...)
	g.activity = s.newActivity(g)
	s.welcome(g, splice.Conn{Conn: sc, Channels: chans, Requests: reqs, Closer: nc, Meter: meter})
}

func newGuest(c *conn, sc *ssh.ServerConn, settings *Settings) *guest {
	in := sc.Permissions.ExtraData[signedInKey{}].(signedIn)
	g := &guest{id: c.id, raw: c, conn: sc, user: in.user, task: in.task, present: in.present, identity: in.identity, settings: settings}
	g.entry.Store(&entry{grant: in.grant, perms: sc.Permissions})
	return g
}

// labels are what each line of the log says about the guest.
func (g *guest) labels() []any {
	connection := []any{"conn", g.id, "remote", g.raw.remote.String()}
	if !g.present {
		return append([]any{"user", fmt.Sprintf("%.64s", g.user), "key", g.by()}, connection...)
	}
	return append([]any{"task", string(g.task), "identity", g.identity.Name}, connection...)
}

// by is what the guest signed in with: the fingerprint of a key, or else its name.
func (g *guest) by() string {
	if g.identity.Key == nil {
		return g.identity.Name
	}
	return ssh.FingerprintSHA256(plainKey(g.identity.Key))
}

// welcome serves a guest, and returns when it has left. Its host is dialled when
// the first thing arrives that needs one, which jumps do not.
func (s *Server) welcome(g *guest, in splice.Conn) {
	defer g.activity.left()
	if err := s.addGuest(g); err != nil {
		by := endedByLimit
		if errors.Is(err, ErrClosed) {
			by = endedByDrain
		}
		g.close(by, err.Error())
		go ssh.DiscardRequests(in.Requests)
		refuseChannels(in.Channels)
		return
	}
	defer s.removeGuest(g)
	defer g.stay.end()
	g.log.Info("guest signed in", "method", g.identity.Method, "client", string(g.conn.ClientVersion()))
	if by, err := s.expelled(g); err != nil { // meanwhile
		g.close(by, err.Error())
		return
	}
	start := time.Now()
	stop := s.watch(g)
	defer stop()
	g.announce()
	dial := func(ctx context.Context) (splice.Conn, error) { return s.dialHost(ctx, g) }
	if splice.JoinLater(in, dial, s.hooks(g)) == splice.Host {
		g.activity.ends(endedByHost, "the connection to the host ended")
	}
	g.log.Info("guest left", "after", time.Since(start).Round(time.Millisecond))
}

// close ends the guest's connection. Closing the connection below SSH is what
// ends it for certain.
func (g *guest) close(by ender, why string) {
	g.log.Info("closing a guest's connection", "reason", why)
	g.activity.ends(by, why)
	g.raw.Close()
}

// watch ends the guest's connection when its time is over or when it no longer
// answers. The returned function ends the watch and waits for it.
func (s *Server) watch(g *guest) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.recover("keepalive", g.raw)
		g.keepAlive(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// keepAlive asks a silent guest for a sign of life, as sshd does with
// ClientAliveInterval. Any byte counts as one, so the answer itself is not
// waited for here. Questions are what counts, not the silence: after the gateway
// was frozen, or its clock was set, that says nothing of a guest whom nobody asked.
func (g *guest) keepAlive(ctx context.Context) {
	l := g.settings.Limits
	var over <-chan time.Time
	if l.SessionTime > 0 {
		t := time.NewTimer(l.SessionTime)
		defer t.Stop()
		over = t.C
	}
	tick := time.NewTicker(l.KeepaliveInterval)
	defer tick.Stop()
	asking := make(chan struct{}, 1)
	unanswered := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			g.close(endedBySessionTime, fmt.Sprintf("it was open for %v, the longest that this gateway allows", l.SessionTime))
			return
		case <-tick.C:
		}
		if g.raw.silence() < l.KeepaliveInterval {
			unanswered = 0
			continue
		}
		if unanswered >= l.KeepaliveCount {
			g.close(endedByKeepalive, "it did not answer keepalives")
			return
		}
		unanswered++
		tick.Reset(l.KeepaliveInterval) // all of it is for the answer
		select {
		case asking <- struct{}{}:
			go func() {
				g.conn.SendRequest("keepalive@openssh.com", true, nil)
				<-asking
			}()
		default: // the last one is not answered yet
		}
	}
}

// addGuest makes a guest known to Drain and Close, and counts its connection. It
// fails when the gateway has closed meanwhile, or the guest has too many.
func (s *Server) addGuest(g *guest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	if n := s.connected[g.owner()]; n >= g.settings.Limits.ConnectionsPerIdentity {
		return fmt.Errorf("its identity has %d connections already, as many as it may", n)
	}
	s.connected[g.owner()]++
	s.guests[g] = struct{}{}
	return nil
}

func (s *Server) removeGuest(g *guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.guests, g)
	decrement(s.connected, g.owner())
	s.idle.Broadcast()
}

func (s *Server) guestCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.guests)
}
