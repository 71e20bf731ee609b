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
	// retireSilence closes a tunnel that was replaced by a newer one of the
	// same agent: an agent dials again because it gave the old one up, so what
	// is silent on it is half open.
	retireSilence = 5 * time.Second
	// retireTick is how often a retiring tunnel is looked at.
	retireTick = time.Second
)

// host is the host of one task as this gateway knows it: what was registered,
// and the tunnels to its agent. Its fields are guarded by Server.mu.
type host struct {
	registration
	current *tunnel.Tunnel // nil while the agent is dialling again
	tunnels map[*tunnel.Tunnel]struct{}
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
	endToEndOnly bool
}

// serveTunnel speaks with an agent on nc until its tunnel ends. binding is what
// the agent signs to prove its key, nil for TLS of our own. It closes nc.
func (s *Server) serveTunnel(nc net.Conn, c *conn, binding []byte) {
	settings := s.settings.Load()
	log := s.log.With("conn", c.id, "remote", c.remote.String())
	var claim registry.Claim
	var reg registration
	admit := func(ctx context.Context, t *tunnel.Tunnel, h tunnel.Hello) (tunnel.Welcome, error) {
		var err error
		reg, err = s.judge(settings, h)
		if err != nil {
			return tunnel.Welcome{}, err
		}
		if claim, err = s.claim(ctx, settings, reg, t); err != nil {
			return tunnel.Welcome{}, err
		}
		return s.welcomeHost(settings, reg)
	}
	t, err := tunnel.Accept(s.ctx, nc, &tunnel.AcceptOptions{
		Binding:      binding,
		MaxStreams:   settings.Limits.StreamsPerTunnel,
		HelloTimeout: settings.Limits.HandshakeTimeout,
		Logger:       log,
	}, admit)
	if claim != nil {
		defer s.unregister(reg, claim, t)
	}
	if err != nil {
		s.hostRefused(log, err)
		return
	}
	defer t.Close()
	c.leave()
	defer s.throttle.trust(sourceOf(c.remote.Addr()))()
	log = log.With("task", string(reg.task))
	s.metrics.registrations.WithLabelValues("ok").Inc()
	log.Info("host registered", "host_key", ssh.FingerprintSHA256(reg.hostKey), "labels", t.Hello().Labels)
	s.keepTunnel(log, settings, t, reg, claim)
	log.Info("tunnel ended", "reason", t.Err())
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
	if reg.hostKey, err = ssh.ParsePublicKey(h.HostKey); err != nil {
		return none, &tunnel.Refusal{Code: tunnel.CodeBadToken, Message: "the agent sent no usable host key: " + err.Error()}
	}
	reg.agentKey = h.AgentKey
	reg.endToEndOnly = h.EndToEndOnly
	return reg, nil
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

// claim takes the task in the registry and publishes the tunnel, so that a guest
// who acts on the agent's first line of output finds it.
func (s *Server) claim(ctx context.Context, settings *Settings, reg registration, t *tunnel.Tunnel) (registry.Claim, error) {
	task := string(reg.task)
	if n := s.tunnelsOf(task); n >= settings.Limits.TunnelsPerTask {
		return nil, &tunnel.Refusal{Code: tunnel.CodeLimit, Retry: true,
			Message: fmt.Sprintf("task %s has %d tunnels already, the most that this gateway allows", task, n)}
	}
	claim, err := s.registry.Claim(ctx, task, registry.Owner{Gateway: s.name, Key: reg.agentKey, IssuedAt: reg.generation})
	switch {
	case errors.Is(err, registry.ErrHeld):
		return nil, &tunnel.Refusal{Code: tunnel.CodeHeld, Message: "another agent holds task " + task + " with a token of the same time: mint a token for each agent"}
	case errors.Is(err, registry.ErrSuperseded):
		return nil, &tunnel.Refusal{Code: tunnel.CodeReplaced, Message: "an agent with a newer token holds task " + task}
	case err != nil:
		return nil, fmt.Errorf("claim task %q: %w", task, err)
	}
	s.publish(reg, t)
	return claim, nil
}

func (s *Server) welcomeHost(settings *Settings, reg registration) (tunnel.Welcome, error) {
	renewal, err := auth.MintRenewal(settings.RenewalKey, auth.Renewal{
		Task: reg.task, AgentKey: reg.agentKey, IssuedAt: reg.generation, Deadline: reg.deadline, Grant: *reg.grant,
	})
	if err != nil {
		return tunnel.Welcome{}, fmt.Errorf("mint a renewal for task %q: %w", reg.task, err)
	}
	return tunnel.Welcome{
		Address:  settings.Address,
		CA:       settings.CA.PublicKey().Marshal(),
		Deadline: reg.deadline,
		Renewal:  renewal,
		Now:      time.Now(),
	}, nil
}

// keepTunnel returns when the tunnel has ended, was replaced, or is past its
// deadline.
func (s *Server) keepTunnel(log *slog.Logger, settings *Settings, t *tunnel.Tunnel, reg registration, claim registry.Claim) {
	var over <-chan time.Time
	if !reg.deadline.IsZero() {
		timer := time.NewTimer(time.Until(reg.deadline))
		defer timer.Stop()
		over = timer.C
	}
	messages := t.Control().Messages()
	for {
		select {
		case <-t.Done():
			return
		case <-over:
			log.Info("the task's deadline has come")
			s.tell(t, tunnel.Message{Type: tunnel.TypeDeadline, Reason: "the task's deadline has come"})
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
	if err != nil || !bytes.Equal(owner.Key, reg.agentKey) {
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
	for t.Streams() > 0 && time.Since(t.LastRead()) < retireSilence {
		select {
		case <-t.Done():
			return
		case <-tick.C:
		}
	}
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

// publish makes t the tunnel that new guests of the task use.
func (s *Server) publish(reg registration, t *tunnel.Tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[string(reg.task)]
	if h == nil {
		h = &host{tunnels: make(map[*tunnel.Tunnel]struct{})}
		s.hosts[string(reg.task)] = h
	}
	if h.forget != nil {
		h.forget.Stop()
		h.forget = nil
	}
	h.registration = reg
	h.current = t
	h.tunnels[t] = struct{}{}
}

// unregister gives back the claim of a tunnel that has ended. The task is
// remembered for a while, so that its guests can sign in until the agent has
// dialled again.
func (s *Server) unregister(reg registration, claim registry.Claim, t *tunnel.Tunnel) {
	if err := claim.Release(); err != nil {
		s.log.Error("cannot release a claim", "task", string(reg.task), "error", err)
	}
	task := string(reg.task)
	grace := s.settings.Load().Limits.HostGrace
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[task]
	delete(h.tunnels, t)
	if h.current == t {
		h.current = nil
	}
	if len(h.tunnels) > 0 {
		return
	}
	if s.ctx.Err() != nil || !reg.deadline.IsZero() && time.Now().After(reg.deadline) {
		delete(s.hosts, task)
		return
	}
	h.forget = time.AfterFunc(grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hosts[task] == h && len(h.tunnels) == 0 {
			delete(s.hosts, task)
		}
	})
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
// through it.
func (s *Server) tunnelOf(task string) (*tunnel.Tunnel, registration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[task]
	if h == nil {
		return nil, registration{}, false
	}
	return h.current, h.registration, true
}

func (s *Server) tunnelsOf(task string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[task]; h != nil {
		return len(h.tunnels)
	}
	return 0
}

// closeTunnels is called with Server.mu held.
func (h *host) closeTunnels() {
	for t := range h.tunnels {
		t.Close()
	}
	if h.forget != nil {
		h.forget.Stop()
	}
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
