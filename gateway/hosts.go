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
	tunnels map[*tunnel.Tunnel]registry.Claim
	forget  *time.Timer // runs while there is no tunnel
}

// registration is what a host proved and declared when it dialled in.
type registration struct {
	task         auth.TaskID
	grant        *auth.Grant
	agentKey     ed25519.PublicKey
	generation   time.Time // the token's iat: of two agents for a task the newer wins
	deadline     time.Time // zero: none
	hostKey      ssh.PublicKey
	ca           ssh.Signer // whose certificates the agent believes: it was named in its welcome
	endToEndOnly bool
}

// serveTunnel speaks with an agent on nc until its tunnel ends. binding is what
// the agent signs to prove its key, nil for TLS of our own. It closes nc.
func (s *Server) serveTunnel(nc net.Conn, c *conn, binding []byte) {
	a := &admission{s: s, settings: s.settings.Load(), conn: c}
	a.log = s.log.With("conn", c.id, "remote", c.remote.String())
	defer a.end() // also after a panic
	t, err := tunnel.Accept(s.ctx, nc, &tunnel.AcceptOptions{
		Binding:      binding,
		MaxStreams:   a.settings.Limits.StreamsPerTunnel,
		HelloTimeout: a.settings.Limits.HandshakeTimeout,
		Logger:       a.log,
	}, a.admit)
	if a.claim == nil {
		s.hostRefused(a.log, err)
		return
	}
	if err == nil { // else the agent went before it was welcomed
		defer t.Close()
		s.keepTunnel(a.log, t, a.reg, a.claim)
		err = t.Err()
	}
	a.log.Info("tunnel ended", "reason", err)
}

// admission is the registration of one tunnel. Once the agent is admitted it
// has a claim, to be given back by end.
type admission struct {
	s        *Server
	settings *Settings
	conn     *conn
	log      *slog.Logger

	reg      registration
	claim    registry.Claim
	tunnel   *tunnel.Tunnel
	distrust func()
}

// admit judges an agent, claims its task and publishes its tunnel.
func (a *admission) admit(ctx context.Context, t *tunnel.Tunnel, h tunnel.Hello) (_ tunnel.Welcome, err error) {
	if a.reg, err = a.s.judge(a.settings, h); err != nil {
		return tunnel.Welcome{}, err
	}
	welcome, err := welcomeHost(a.settings, a.reg)
	if err != nil {
		return tunnel.Welcome{}, err
	}
	if a.claim, err = a.s.claim(ctx, a.settings, a.reg); err != nil {
		return tunnel.Welcome{}, err
	}
	a.tunnel = t
	a.conn.leave()
	a.distrust = a.s.throttle.trust(sourceOf(a.conn.remote.Addr()))
	a.s.publish(a.reg, t, a.claim)
	a.s.metrics.registrations.WithLabelValues("ok").Inc()
	a.log = a.log.With("task", string(a.reg.task))
	a.log.Info("host registered", "host_key", ssh.FingerprintSHA256(a.reg.hostKey), "labels", h.Labels)
	return welcome, nil
}

// end gives back what admit took. The task is remembered for a while, so that
// its guests can sign in until the agent has dialled again.
func (a *admission) end() {
	if a.claim == nil {
		return
	}
	a.distrust()
	if err := a.claim.Release(); err != nil {
		a.log.Error("cannot release a claim", "error", err)
	}
	a.s.unpublish(a.reg, a.tunnel)
}

func (s *Server) hostRefused(log *slog.Logger, err error) {
	result := "failed"
	var refusal *tunnel.Refusal
	if errors.As(err, &refusal) {
		result = refusal.Code
	}
	s.metrics.registrations.WithLabelValues(result).Inc()
	log.Info("host was not registered", "result", result, "error", err)
}

// judge decides whether an agent may host the task that it names. Its errors
// are [tunnel.Refusal]s, made for the person who runs the job.
func (s *Server) judge(settings *Settings, h tunnel.Hello) (registration, error) {
	var none registration
	if s.stopped() {
		return none, &tunnel.Refusal{Code: tunnel.CodeDraining, Message: "this gateway is shutting down", Retry: true}
	}
	reg, err := credentials(settings, h)
	if err != nil {
		return none, refusalFor(err)
	}
	task, err := auth.ParseTaskID(h.Task)
	if err != nil || task != reg.task {
		return none, &tunnel.Refusal{Code: tunnel.CodeBadToken, Message: fmt.Sprintf("the token is for task %q, not for %q", reg.task, h.Task)}
	}
	if reg.hostKey, err = parseHostKey(h.HostKey); err != nil {
		return none, &tunnel.Refusal{Code: tunnel.CodeBadToken, Message: "the agent sent no usable host key: " + err.Error()}
	}
	reg.agentKey = h.AgentKey
	reg.ca = settings.CA
	reg.endToEndOnly = h.EndToEndOnly
	return reg, nil
}

// parseHostKey reads the host key of an agent. Only kinds whose verification
// costs next to nothing are taken: the gateway does it for each guest.
func parseHostKey(raw []byte) (ssh.PublicKey, error) {
	key, err := ssh.ParsePublicKey(raw)
	if err != nil {
		return nil, err
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return key, nil
	}
	return nil, fmt.Errorf("a host key of type %.64q: an ed25519 or ecdsa key is needed", key.Type())
}

// credentials verifies the token of a new agent, or what the gateway gave to
// one that comes back.
func credentials(settings *Settings, h tunnel.Hello) (registration, error) {
	if h.Renewal == "" {
		t, err := settings.Tokens.Verify(h.Token)
		if err != nil {
			return registration{}, err
		}
		return registration{task: t.Task, grant: &t.Grant, generation: t.IssuedAt, deadline: t.Grant.Until}, nil
	}
	keys := []ed25519.PublicKey{settings.RenewalKey.Public().(ed25519.PublicKey)}
	r, err := auth.VerifyRenewal(keys, h.Renewal, time.Now())
	if err != nil {
		return registration{}, err
	}
	if !bytes.Equal(r.AgentKey, h.AgentKey) {
		return registration{}, fmt.Errorf("%w: the renewal belongs to another agent", auth.ErrTokenInvalid)
	}
	return registration{task: r.Task, grant: &r.Grant, generation: r.IssuedAt, deadline: r.Deadline}, nil
}

func refusalFor(err error) *tunnel.Refusal {
	code := tunnel.CodeBadToken
	if errors.Is(err, auth.ErrTokenExpired) {
		code = tunnel.CodeExpired
	}
	return &tunnel.Refusal{Code: code, Message: err.Error()}
}

// claim takes the task in the registry.
func (s *Server) claim(ctx context.Context, settings *Settings, reg registration) (registry.Claim, error) {
	task := string(reg.task)
	if n := s.tunnelsOf(task); n >= settings.Limits.TunnelsPerTask {
		return nil, &tunnel.Refusal{Code: tunnel.CodeLimit, Retry: true,
			Message: fmt.Sprintf("task %s has %d tunnels already, the most that this gateway allows", task, n)}
	}
	if err := s.remembered(reg); err != nil {
		return nil, err
	}
	claim, err := s.registry.Claim(ctx, task, registry.Owner{Gateway: s.name, Key: reg.agentKey, IssuedAt: reg.generation})
	switch {
	case errors.Is(err, registry.ErrHeld):
		t, _, _ := s.tunnelOf(task)
		return nil, held(task, t == nil || !s.answers(t))
	case errors.Is(err, registry.ErrSuperseded):
		return nil, &tunnel.Refusal{Code: tunnel.CodeReplaced, Message: "an agent with a newer token holds task " + task}
	case err != nil:
		return nil, fmt.Errorf("claim task %q: %w", task, err)
	}
	return claim, nil
}

// remembered refuses an agent whose token is no newer than that of another agent
// that lost its tunnel a moment ago: a copy of a token must not win just because
// the agent that has the task dials again.
func (s *Server) remembered(reg registration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[string(reg.task)]
	if h == nil || h.current != nil || bytes.Equal(h.agentKey, reg.agentKey) || reg.generation.After(h.generation) {
		return nil // or the registry says what is to be said
	}
	return held(string(reg.task), true)
}

// held refuses a second agent with a token of the same time: for good while the
// first one answers.
func held(task string, lost bool) *tunnel.Refusal {
	if lost {
		return &tunnel.Refusal{Code: tunnel.CodeHeld, Retry: true,
			Message: "another agent with the same token has lost its connection to task " + task + " and is given time to come back"}
	}
	return &tunnel.Refusal{Code: tunnel.CodeHeld,
		Message: "another agent holds task " + task + " with a token of the same time: mint a token for each agent"}
}

func welcomeHost(settings *Settings, reg registration) (tunnel.Welcome, error) {
	renewal, err := auth.MintRenewal(settings.RenewalKey, auth.Renewal{
		Task: reg.task, AgentKey: reg.agentKey, IssuedAt: reg.generation, Deadline: reg.deadline, Grant: *reg.grant,
	})
	if err != nil {
		return tunnel.Welcome{}, fmt.Errorf("mint a renewal for task %q: %w", reg.task, err)
	}
	return tunnel.Welcome{
		Address:  settings.Address,
		CA:       reg.ca.PublicKey().Marshal(),
		Deadline: reg.deadline,
		Renewal:  renewal,
		Now:      time.Now(),
	}, nil
}

// keepTunnel returns when the tunnel has ended, was replaced, or is past its
// deadline.
func (s *Server) keepTunnel(log *slog.Logger, t *tunnel.Tunnel, reg registration, claim registry.Claim) {
	var over <-chan time.Time
	if !reg.deadline.IsZero() {
		timer := time.NewTimer(time.Until(reg.deadline))
		defer timer.Stop()
		over = timer.C
	}
	if s.stopped() { // it came in while the others were told
		s.tell(t, tunnel.Message{Type: tunnel.TypeDrain})
	}
	messages := t.Control().Messages()
	for {
		select {
		case <-t.Done():
			return
		case <-s.ctx.Done():
			return
		case <-over:
			log.Info("the task's deadline has come") // the agent learns it when it dials again
			return
		case <-claim.Lost():
			s.retire(log, t, reg)
			return
		case _, ok := <-messages:
			if !ok {
				messages = nil // the tunnel is ending: Done follows
			}
		}
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
		select {
		case <-t.Done():
		case <-s.ctx.Done():
		case <-time.After(retireSilence):
		}
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
		h = &host{tunnels: make(map[*tunnel.Tunnel]registry.Claim), arrived: make(chan struct{})}
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
	h.registration = reg
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
	if s.closed || !h.deadline.IsZero() && time.Now().After(h.deadline) {
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

// lost is for whoever finds out first that a tunnel has ended.
func (s *Server) lost(task string, t *tunnel.Tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[task]; h != nil {
		h.lose(t)
	}
}

// grantOf is the grant of a task's host, nil when there is none.
func (s *Server) grantOf(task string) *auth.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[task]; h != nil {
		return h.grant
	}
	return nil
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

func (s *Server) tunnelsOf(task string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[task]; h != nil {
		return len(h.tunnels)
	}
	return 0
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
