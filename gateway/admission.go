package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/auth/issuer"
	"github.com/stagedoor/stagedoor/gateway/registry"
	"github.com/stagedoor/stagedoor/tunnel"
)

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

	asked string // the task that the agent named
	cause error  // of the tunnel's end
}

// admit judges an agent, claims its task and publishes its tunnel.
func (a *admission) admit(ctx context.Context, t *tunnel.Tunnel, h tunnel.Hello) (_ tunnel.Welcome, err error) {
	a.asked = h.Task
	if a.reg, err = a.s.judge(ctx, a.settings, h); err != nil {
		return tunnel.Welcome{}, err
	}
	a.reg.accounts = lookUpAccounts(ctx, a.log, a.settings, auth.Task{ID: a.reg.task, Grant: a.reg.grant})
	a.reg.remote, a.reg.since = a.conn.remote.String(), time.Now()
	if err := a.s.blocks.refusal(a.reg); err != nil {
		return tunnel.Welcome{}, err
	}
	welcome, err := welcomeHost(a.settings, a.reg)
	if err != nil {
		return tunnel.Welcome{}, err
	}
	release, err := a.s.reserveTunnel(a.reg.task, a.settings.Limits)
	if err != nil {
		return tunnel.Welcome{}, err
	}
	defer release() // by then it was published
	if a.claim, err = a.s.claim(ctx, a.reg); err != nil {
		return tunnel.Welcome{}, err
	}
	a.tunnel = t
	a.conn.leave()
	a.distrust = a.s.throttle.trust(sourceOf(a.conn.remote.Addr()))
	a.recordRegistered(h)
	a.s.publish(a.reg, t, a.claim)
	if err := a.s.blocks.refusal(a.reg); err != nil { // meanwhile: who blocked it may not have seen it
		return tunnel.Welcome{}, err
	}
	a.s.metrics.registrations.WithLabelValues("ok").Inc()
	a.log = a.log.With("task", string(a.reg.task))
	args := []any{"host_key", ssh.FingerprintSHA256(a.reg.hostKey)}
	if len(h.Labels) > 0 {
		args = append(args, "labels", h.Labels)
	}
	a.log.Info("host registered", args...)
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
	a.recordEnded()
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
func (s *Server) judge(ctx context.Context, settings *Settings, h tunnel.Hello) (registration, error) {
	var none registration
	if s.stopped() {
		return none, &tunnel.Refusal{Code: tunnel.CodeDraining, Message: "this gateway is shutting down", Retry: true}
	}
	reg, err := s.credentials(ctx, settings, h)
	if err != nil {
		return none, refusalFor(err)
	}
	task, err := auth.ParseTaskID(h.Task)
	if (h.Task != "" || !reg.derived) && (err != nil || task != reg.task) {
		return none, &tunnel.Refusal{Code: tunnel.CodeBadToken, Message: fmt.Sprintf("the token is for task %q, not for %q", reg.task, h.Task)}
	}
	if reg.hostKey, err = parseHostKey(h.HostKey); err != nil {
		return none, &tunnel.Refusal{Code: tunnel.CodeBadToken, Message: "the agent sent no usable host key: " + err.Error()}
	}
	if reg.keys, err = grantKeys(reg.grant); err != nil {
		return none, &tunnel.Refusal{Code: tunnel.CodeBadToken, Message: err.Error()}
	}
	if !reg.deadline.IsZero() && !time.Now().Before(reg.deadline) {
		return none, &tunnel.Refusal{Code: tunnel.CodeExpired, Message: fmt.Sprintf("the time of task %s is over since %s (until, in its grant)",
			reg.task, reg.deadline.UTC().Format(time.RFC3339))}
	}
	reg.agentKey = h.AgentKey
	reg.ca, reg.welcomedBy = settings.CA, settings
	reg.endToEndOnly = h.EndToEndOnly
	if reg.grant.OneTimePassword && !h.EndToEndOnly {
		reg.passwordHash = h.PasswordHash
	}
	return reg, s.useToken(reg)
}

// useToken lets a token let in no more than one agent.
func (s *Server) useToken(reg registration) error {
	if reg.tokenUntil.IsZero() {
		return nil
	}
	first, err := s.used.take(reg.token, reg.agentKey, reg.tokenUntil)
	switch {
	case err != nil:
		s.log.Error("cannot note that a token was used", "task", string(reg.task), "error", err)
		return fmt.Errorf("note that the token was used: %w", err)
	case first != nil:
		s.log.Warn("a token was shown by a second agent: somebody has a copy of it", "task", string(reg.task),
			"first_agent", agentFingerprint(first), "second_agent", agentFingerprint(reg.agentKey))
		return &tunnel.Refusal{Code: tunnel.CodeReplayed, Message: "the token was used by another agent before: mint one for each agent, " +
			"or have an agent that starts again keep its keys (state directory)"}
	}
	return nil
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
func (s *Server) credentials(ctx context.Context, settings *Settings, h tunnel.Hello) (registration, error) {
	if h.Renewal == "" && settings.Issuers.Issues(h.Token) {
		return s.idToken(ctx, settings, h)
	}
	if h.Renewal == "" {
		t, err := settings.Tokens.Verify(ctx, h.Token)
		if err != nil {
			return registration{}, err
		}
		if provider := settings.Issuers.Provider(t.Task); provider != "" {
			return registration{}, fmt.Errorf("%w: names like %q are kept for the jobs of %s, which have tokens of their own: give the task another", auth.ErrTokenInvalid, t.Task, provider)
		}
		return registration{
			task: t.Task, grant: &t.Grant, generation: t.IssuedAt, deadline: t.Grant.Until,
			token: newTokenID("task "+string(t.Task), t.ID), tokenUntil: t.Expires.Add(max(0, settings.Tokens.Leeway)),
		}, nil
	}
	r, err := auth.VerifyRenewal(settings.renewalKeys(), h.Renewal, time.Now())
	if err != nil {
		return registration{}, err
	}
	if !bytes.Equal(r.AgentKey, h.AgentKey) {
		return registration{}, fmt.Errorf("%w: the renewal belongs to another agent", auth.ErrTokenInvalid)
	}
	return registration{task: r.Task, grant: &r.Grant, generation: r.IssuedAt, deadline: r.Deadline}, nil
}

// idToken verifies what a CI provider gave its job. The task is derived from what
// it says, and the person behind the run may enter, with whoever pressed re-run where
// the operator lets jobs declare that.
func (s *Server) idToken(ctx context.Context, settings *Settings, h tunnel.Hello) (registration, error) {
	id, err := settings.Issuers.Verify(ctx, h.Token)
	if err != nil {
		return registration{}, err
	}
	grant := &auth.Grant{}
	for _, actor := range []issuer.Actor{id.Actor, id.TriggeringActor(h.Labels[issuer.LabelTriggeringActor])} {
		if account := forge.Account(actor).String(); actor != (issuer.Actor{}) && auth.CheckAccount(account) == nil {
			grant.Accounts = append(grant.Accounts, account)
		}
	}
	s.log.Info("ID token accepted", "task", string(id.Task), "provider", id.Provider, "accounts", grant.Accounts)
	return registration{
		task: id.Task, derived: true, grant: grant, generation: id.IssuedAt,
		token: newTokenID("issuer "+id.Issuer, id.ID), tokenUntil: id.Expires,
	}, nil
}

func refusalFor(err error) *tunnel.Refusal {
	if errors.Is(err, auth.ErrTokenUnverified) {
		return &tunnel.Refusal{Code: tunnel.CodeUnavailable, Message: err.Error(), Retry: true}
	}
	code := tunnel.CodeBadToken
	if errors.Is(err, auth.ErrTokenExpired) {
		code = tunnel.CodeExpired
	}
	return &tunnel.Refusal{Code: code, Message: err.Error()}
}

// reserveTunnel counts a tunnel that is about to be published, until release is
// called: agents that come at a time must not pass the limit side by side.
func (s *Server) reserveTunnel(task auth.TaskID, l Limits) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.admitting[task]
	if h := s.hosts[string(task)]; h != nil {
		n += len(h.tunnels)
	}
	if n >= l.TunnelsPerTask {
		return nil, &tunnel.Refusal{Code: tunnel.CodeLimit, Retry: true,
			Message: fmt.Sprintf("task %s has %d tunnels already, the most that this gateway allows", task, n)}
	}
	s.admitting[task]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		decrement(s.admitting, task)
	}, nil
}

// claim takes the task in the registry.
func (s *Server) claim(ctx context.Context, reg registration) (registry.Claim, error) {
	task := string(reg.task)
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
			Message: "another agent with a token of the same time has lost its connection to task " + task + " and is given time to come back"}
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
	policy, err := auth.MarshalPolicy(settings.Policy)
	if err != nil {
		return tunnel.Welcome{}, fmt.Errorf("policy for end-to-end guests: %w", err)
	}
	return tunnel.Welcome{
		Policy:   policy,
		Address:  settings.Address,
		Task:     string(reg.task),
		CA:       reg.ca.PublicKey().Marshal(),
		Deadline: reg.deadline,
		Renewal:  renewal,
		Now:      time.Now(),
	}, nil
}
