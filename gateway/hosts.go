package gateway

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/registry"
	"github.com/stagedoor/stagedoor/tunnel"
)

const (
	// retireSilence is how long the agent on an older tunnel may take to give a
	// sign of life, and to stop when it was replaced. An agent dials again
	// mostly because it gave the older tunnel up.
	retireSilence = 5 * time.Second
	// retireTick is how often a retiring tunnel is looked at.
	retireTick = 2 * time.Second
)

// host is the host of one task as this gateway knows it: what was registered,
// and the tunnels to its agent. Its fields are guarded by Server.mu.
type host struct {
	registration
	current *tunnel.Tunnel // nil while the agent is dialling again
	arrived chan struct{}  // closed when current is set
	places  *places        // that guests have taken
	state   taskState
	tunnels map[*tunnel.Tunnel]registry.Claim
	left    bool        // the agent said that it does not come back
	forget  *time.Timer // runs while there is no tunnel
}

// registration is what a host proved and declared when it dialled in.
type registration struct {
	task         auth.TaskID
	grant        *auth.Grant
	keys         []string    // that the grant names, as in keyIndex
	accounts     accountKeys // that it names by account; never changed, only replaced
	agentKey     ed25519.PublicKey
	generation   time.Time // the token's iat: of two agents for a task the newer wins
	deadline     time.Time // zero: none
	hostKey      ssh.PublicKey
	ca           ssh.Signer // whose certificates the agent believes: it was named in its welcome
	welcomedBy   *Settings  // which its welcome told of
	endToEndOnly bool
	passwordHash []byte    // of the task's one-time password; nil: there is none
	derived      bool      // the task is, from a token that does not name it
	remote       string    // where the agent came from
	since        time.Time // when that was

	token      tokenID   // by which it comes in for the first time
	tokenUntil time.Time // when that one verifies no more; zero: it comes back by a renewal
}

// serveTunnel speaks with an agent on nc until its tunnel ends. binding is what
// the agent signs to prove its key, nil for TLS of our own. It closes nc.
func (s *Server) serveTunnel(nc net.Conn, c *conn, binding []byte) {
	a := &admission{s: s, settings: s.settings.Load(), conn: c}
	a.log = s.log.With("conn", c.id, "remote", c.remote.String())
	verdict := c.judge()
	defer verdict()
	defer a.end() // also after a panic
	t, err := tunnel.Accept(s.ctx, nc, &tunnel.AcceptOptions{
		Binding:      binding,
		MaxStreams:   a.settings.Limits.StreamsPerTunnel,
		HelloTimeout: a.settings.Limits.HandshakeTimeout,
		Logger:       a.log,
	}, a.admit)
	if a.claim == nil {
		c.blame(hostOffence(err))
		s.hostRefused(a.log, err)
		a.recordRefused(err)
		return
	}
	if err == nil { // else the agent went before it was welcomed
		defer t.Close()
		err = s.keepTunnel(a.log, t, a.reg, a.claim)
	}
	a.cause = err
	a.log.Info("tunnel ended", "reason", err)
}

// Why the gateway ends a tunnel.
var (
	errAgentLeft     = errors.New("the agent has stopped")
	errTimeOver      = errors.New("the task's deadline has come")
	errAgentReplaced = errors.New("another tunnel has taken its place")
)

// keepTunnel returns when the tunnel has ended, its agent leaves or was replaced,
// or the task is past its deadline. It says which.
func (s *Server) keepTunnel(log *slog.Logger, t *tunnel.Tunnel, reg registration, claim registry.Claim) error {
	var over <-chan time.Time
	if !reg.deadline.IsZero() {
		timer := time.NewTimer(time.Until(reg.deadline))
		defer timer.Stop()
		over = timer.C
	}
	if s.stopped() || s.settings.Load().outdated(reg.welcomedBy) != "" { // it came in while the others were told
		s.tell(t, tunnel.Message{Type: tunnel.TypeDrain})
	}
	messages := t.Control().Messages()
	for {
		select {
		case <-t.Done():
			return t.Err()
		case <-s.ctx.Done():
			return ErrClosed
		case <-over:
			s.endTask(t, reg.task)
			return errTimeOver
		case <-claim.Lost():
			s.retire(log, t, reg)
			return errAgentReplaced
		case m, ok := <-messages:
			if !ok {
				messages = nil // the tunnel is ending: Done follows
			}
			if m.Type == tunnel.TypeState {
				s.note(reg.task, t, m)
			}
			if m.Type == tunnel.TypeBye {
				s.leave(reg.task, t)
				return errAgentLeft
			}
		}
	}
}

// endTask tells the guests of a task, and then its agent, that its time is over.
func (s *Server) endTask(t *tunnel.Tunnel, task auth.TaskID) {
	why := fmt.Sprintf("the time of task %s is over", task)
	s.leave(task, t)
	s.kickGuests(func(g *guest) bool { return g.present && g.task == task }, endedByDeadline, why)
	s.tell(t, tunnel.Message{Type: tunnel.TypeOver, Reason: why})
	s.awaitEnd(t)
}

// awaitEnd gives an agent a moment to act on what it was told.
func (s *Server) awaitEnd(t *tunnel.Tunnel) {
	select {
	case <-t.Done():
	case <-s.ctx.Done():
	case <-time.After(retireSilence):
	}
}

// retire ends a tunnel whose task was claimed anew. An agent that came back
// drains its old tunnel; one that was replaced is told so, and stops.
func (s *Server) retire(log *slog.Logger, t *tunnel.Tunnel, reg registration) {
	owner, err := s.registry.Lookup(s.ctx, string(reg.task))
	// Not on an error: to be replaced is final for an agent, to drain is not.
	if err == nil && !bytes.Equal(owner.Key, reg.agentKey) {
		log.Info("host was replaced by a newer one")
		s.tell(t, tunnel.Message{Type: tunnel.TypeReplaced, Reason: "an agent with a newer token took over task " + string(reg.task)})
		s.awaitEnd(t)
		return
	}
	log.Info("host dialled again, its older tunnel drains")
	tick := time.NewTicker(retireTick)
	defer tick.Stop()
	for t.Streams() > 0 && s.answers(t) {
		select {
		case <-t.Done():
			return
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answers asks an agent for a sign of life.
func (s *Server) answers(t *tunnel.Tunnel) bool {
	ctx, cancel := context.WithTimeout(s.ctx, retireSilence)
	defer cancel()
	return t.Probe(ctx) == nil
}

func (s *Server) tell(t *tunnel.Tunnel, m tunnel.Message) {
	ctx, cancel := context.WithTimeout(s.ctx, retireSilence)
	defer cancel()
	t.Control().Send(ctx, m)
}

// tellHosts sends a message to every agent without waiting for slow ones.
func (s *Server) tellHosts(m tunnel.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hosts {
		for t := range h.tunnels {
			go s.track(func() { s.tell(t, m) })
		}
	}
}

// publish makes t the tunnel that new guests of the task use. It happens before
// the agent is welcomed, so that a guest who acts on the agent's first line of
// output finds it.
func (s *Server) publish(reg registration, t *tunnel.Tunnel, claim registry.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[string(reg.task)]
	if h == nil {
		h = &host{tunnels: make(map[*tunnel.Tunnel]registry.Claim), arrived: make(chan struct{}), places: new(places)}
		s.hosts[string(reg.task)] = h
	}
	if h.forget != nil {
		h.forget.Stop()
		h.forget = nil
	}
	h.tunnels[t] = claim
	if isClosed(claim.Lost()) {
		return // a newer one overtook it on the way here
	}
	s.keys.replace(reg.task, h.named(), reg.named())
	h.registration, h.left = reg, false
	if h.current == nil {
		close(h.arrived)
	}
	h.current = t
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// unpublish forgets a tunnel that has ended, and the task itself when none has
// come after a while.
func (s *Server) unpublish(reg registration, t *tunnel.Tunnel) {
	task := string(reg.task)
	grace := s.settings.Load().Limits.HostGrace
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[task]
	delete(h.tunnels, t)
	h.lose(t)
	if len(h.tunnels) > 0 {
		return
	}
	if s.closed || h.left || s.blocks.refusal(reg) != nil || !h.deadline.IsZero() && time.Now().After(h.deadline) {
		s.remove(task, h)
		return
	}
	h.forget = time.AfterFunc(grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hosts[task] == h && len(h.tunnels) == 0 {
			s.remove(task, h)
		}
	})
}

// remove forgets a task, and lets go of guests that wait for its host. It is
// called with s.mu held.
func (s *Server) remove(task string, h *host) {
	delete(s.hosts, task)
	s.keys.replace(h.task, h.named(), nil)
	if h.current == nil {
		close(h.arrived)
	}
}

// lose makes guests wait for the next tunnel instead of using t, or use another
// one whose claim stands. It is called with Server.mu held.
func (h *host) lose(t *tunnel.Tunnel) {
	if t == nil || h.current != t {
		return
	}
	h.current = nil
	for other, claim := range h.tunnels {
		if other != t && !isClosed(claim.Lost()) && !isClosed(other.Done()) {
			h.current = other
			return
		}
	}
	h.arrived = make(chan struct{})
}

// leave has the task be forgotten with its last tunnel, as nobody comes back to
// it, unless t has been succeeded meanwhile.
func (s *Server) leave(task auth.TaskID, t *tunnel.Tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[string(task)]; h != nil && (h.current == t || h.current == nil) {
		h.left = true
		h.lose(t)
	}
}

// lost is for whoever finds out first that a tunnel has ended.
func (s *Server) lost(task string, t *tunnel.Tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[task]; h != nil {
		h.lose(t)
	}
}

// grantOf is the grant of a task's host, and whether it has one.
func (s *Server) grantOf(task auth.TaskID) (grant *auth.Grant, registered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[string(task)]; h != nil {
		return h.grant, true
	}
	return nil, false
}

// tunnelOf is the tunnel that new guests of a task use and what was registered
// through it. Without a tunnel, arrived is closed when one comes; without a
// host it is nil.
func (s *Server) tunnelOf(task string) (t *tunnel.Tunnel, reg registration, arrived <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[task]
	if h == nil {
		return nil, registration{}, nil
	}
	return h.current, h.registration, h.arrived
}

func (s *Server) tunnelCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.hosts {
		n += len(h.tunnels)
	}
	return n
}

func (s *Server) taskCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.hosts {
		if h.current != nil {
			n++
		}
	}
	return n
}
