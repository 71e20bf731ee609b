// Package agent is the host side of Stagedoor: an SSH server that gives guests shells, commands and files on the machine it runs
// on, and the tunnel that makes it reachable through a gateway.
//
// A CI system that wants its tasks to be reachable runs an [Agent] beside each of them:
//
//	a := &agent.Agent{Gateway: "terminal.example.com", Token: token}
//	err := a.Run(ctx)
//
// A [Server] alone serves any net.Listener. Connections that come out of a tunnel say how their guest signs in: a spliced guest
// brings a certificate that the gateway vouches with, an end-to-end guest, like one on a plain listener, shows a public key that
// the [auth.Grant] names.
//
// Sessions behave as under sshd, with these differences. They start in the task's directory with the task's environment. When
// the guest goes while its program runs, every process of the session is told by SIGHUP and killed after a grace, with or
// without a terminal; what made a session of its own (setsid, tmux, a daemon) lives on, and on Linux so does what was started
// without a terminal and cut off from all of the session's pipes. After a program has ended by itself, whatever it left in the
// background lives on too.
//
// The guest's ssh-agent and display are reached by sockets that belong to the session which asked for them, in a private directory
// that goes with it; under sshd the agent's is the connection's, and the cookie of the display goes to the user's .Xauthority.
//
// Programs inherit no descriptors: when the first one starts, all but the standard ones of this process become close-on-exec.
package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/tunnel"
)

// Agent keeps a host reachable: a [Server] behind a tunnel that is dialled again whenever it is lost. Gateway and Token are
// required; the zero value of every other field works. An Agent must not be changed once Run was called.
type Agent struct {
	// Gateway is the gateway's HTTPS address, as tunnel.ParseGateway takes it: host, host:port (443) or a URL.
	Gateway string
	// Token is the host token. It names the task and carries the grant; or it is the ID token of a CI provider. From that the
	// gateway derives the task, and the grant is for the person behind the run: the account that the token names.
	Token string
	// NewToken, when set, is asked for an ID token where there is no Token, and for another when that has expired unused. It is
	// never called twice at once.
	NewToken func(context.Context) (string, error)
	// TLSConfig is used towards the gateway; nil trusts the system's roots.
	TLSConfig *tls.Config
	// StateDir keeps the agent's keys between runs, for this user alone; empty makes fresh ones for each run. A gateway takes an
	// agent with a known key for the same one that has come back.
	StateDir string
	// HostKey is shown to guests, in the place of the one in StateDir or a fresh one: Ed25519 or ECDSA. Nil: one of those.
	HostKey ssh.Signer
	// HostCertificate is shown to end-to-end guests beside the key, as that of [Server]. It needs HostKey or StateDir.
	HostCertificate *ssh.Certificate
	// Forges look up the keys of accounts that the grant names, for guests who sign in here, from this machine; Run keeps them
	// current, and the caller closes it afterwards. Nil: end to end is closed for accounts.
	Forges *forge.Resolver
	// ExtraAlgorithms are for guests end to end, as those of [Server].
	ExtraAlgorithms []string
	// EndToEndOnly refuses guests that the gateway vouches for, so that only the keys of the grant open a session. Without any
	// such key Run fails.
	EndToEndOnly bool

	// Shell, LoginShell, Env, Dir, AcceptEnv, HangupGrace and Limits are those of [Server].
	Shell       string
	LoginShell  bool
	Env         []string
	Dir         string
	AcceptEnv   []string
	HangupGrace time.Duration
	Limits      Limits

	// Labels describe the host to the gateway.
	Labels map[string]string

	// Clocks say how long Hold holds the job. What they leave open the grant says; it also caps the hard end.
	Clocks hold.Settings
	// ControlSocket is where the control socket is made, by which other processes of the same user reach the agent (see
	// DialControl): a path in a directory that exists, at which nothing else may be. Empty: in a fresh private directory.
	ControlSocket string
	// Program, when set, is the path of the program that sessions find on their PATH as stagedoor: it is called by that name with
	// a verb, and finds the control socket in the environment (ControlVariable). Guests without the permission for it do not.
	Program string

	// Changed, when set, is told the status whenever state, guests or the deadline of the hold have changed, never twice at once.
	// While guests are active the deadline moves all the time; that alone is told once a minute at most. It must not block.
	Changed func(hold.Status)
	// Registered is called each time the gateway has let the host in, never twice at once. It must not block.
	Registered func(Registration)
	// State, when set, is told how the tunnel fares, as tunnel.Dialer.OnState is.
	State func(tunnel.State)
	// SessionStart and SessionEnd are those of [Server].
	SessionStart func(SessionInfo)
	SessionEnd   func(SessionInfo)
	// Logger may be nil: then nothing is logged.
	Logger *slog.Logger

	server   Server
	password password
	held     holder

	up   bool        // a tunnel is; onState alone uses it
	fail func(error) // ends Run

	mu       sync.Mutex // guards what follows, and Token once Run was called
	renewal  string     // the credential for coming back; empty before the first Welcome
	newToken time.Time  // when NewToken was asked last
}

// Registration says how guests reach a registered host.
type Registration struct {
	Task auth.TaskID
	// Address is the gateway's SSH address, host:port; empty when the gateway told none that can be trusted in a command.
	Address string
	// SSHCommand is what a guest types; with EndToEndOnly it is EndToEndCommand. Like the other commands it is built here from
	// checked parts, never taken from the gateway, and can be pasted into a shell. Empty without Address.
	SSHCommand string
	// EndToEndCommand is what a guest types who signs in at the host itself, so that the gateway sees no plaintext. It carries
	// the host key. Empty without Address, and where the grant names no key.
	EndToEndCommand string
	// CertifiedCommand is a short form of it for guests who trust the CA of the host certificate (@cert-authority in known_hosts).
	// Empty where EndToEndCommand is, and without a certificate for a name that the gateway knows the task by.
	CertifiedCommand string
	// Fingerprint is the SHA-256 fingerprint of the agent's host key, which end-to-end guests see.
	Fingerprint string
	// Deadline is when the registration ends; zero means that the gateway set none.
	Deadline time.Time
	// OneTimePassword lets in one guest who has no key, by SSHCommand, where the gateway allows that. It is to be shown in the
	// job's log and nowhere else. Empty where the grant wants none, and once it was used.
	OneTimePassword string
	// ControlSocket is the path of the agent's control socket; empty where none could be made.
	ControlSocket string
}

// Run serves guests until ctx ends or the gateway refuses the host for good. It returns ctx.Err() or an error that wraps the
// *tunnel.Refusal. All sessions have ended and their processes are gone when it returns. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	defer a.ended()
	token, err := a.firstToken(ctx)
	if err != nil {
		return err
	}
	hostKey, agentKey, err := a.keys()
	if err != nil {
		return fmt.Errorf("agent: keys: %w", err)
	}
	a.configure(token, hostKey)
	a.ready()
	a.password.make(&token.Grant, a.EndToEndOnly)
	if err := a.server.setup(); err != nil {
		return err
	}
	defer a.server.Close()
	var watch sync.WaitGroup
	defer watch.Wait()
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	a.fail = cancel
	watch.Go(func() { a.dismissAfter(ctx, inner, cancel) })
	if err := a.openControl(); err != nil {
		return err
	}
	if a.server.socket != nil {
		watch.Go(func() { a.server.socket.serve(inner) })
	}
	watch.Go(func() { a.publish(inner) })
	watch.Go(func() { a.server.watchAccounts(inner) })
	err = a.keep(inner, &tunnel.Dialer{
		Gateway:   a.Gateway,
		TLSConfig: a.TLSConfig,
		Key:       agentKey,
		Hello:     a.hello,
		OnState:   a.onState,
		OnMessage: a.onMessage,
		Logger:    a.server.logger(),
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case inner.Err() != nil:
		return context.Cause(inner)
	}
	return err
}

// keep keeps the tunnel up. A gateway that has lost the key of its renewal credentials is shown the token once more, or a new one.
func (a *Agent) keep(ctx context.Context, d *tunnel.Dialer) error {
	for {
		err := d.Keep(ctx, func(l net.Listener) error {
			a.connected(l.(*tunnel.Listener))
			return a.server.Serve(l)
		})
		r, ok := errors.AsType[*tunnel.Refusal](err)
		if !ok || !a.mayComeAgain(ctx, r) {
			return err
		}
	}
}

// keys returns the host key that was given, and loads the others from the state directory, or makes them.
func (a *Agent) keys() (ssh.Signer, ed25519.PrivateKey, error) {
	hostKey, err := a.HostKey, error(nil)
	if hostKey == nil {
		hostKey, err = a.ownHostKey()
	}
	if err != nil {
		return nil, nil, err
	}
	if a.StateDir != "" {
		agentKey, _, err := auth.LoadOrCreateEd25519(filepath.Join(a.StateDir, "agent_key"))
		return hostKey, agentKey, err
	}
	_, agentKey, err := ed25519.GenerateKey(rand.Reader)
	return hostKey, agentKey, err
}

func (a *Agent) ownHostKey() (ssh.Signer, error) {
	if a.StateDir != "" {
		hostKey, _, err := auth.LoadOrCreateSigner(filepath.Join(a.StateDir, "host_key"))
		return hostKey, err
	}
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(hostKey)
}

func (a *Agent) configure(token *auth.Token, hostKey ssh.Signer) {
	s := &a.server
	s.Task, s.Grant, s.EndToEndOnly = token.Task, &token.Grant, a.EndToEndOnly
	s.taskLater = token.Task == ""
	s.HostKey, s.HostCertificate = hostKey, a.HostCertificate
	s.ExtraAlgorithms = a.ExtraAlgorithms
	s.Forges = a.Forges
	s.Shell, s.LoginShell, s.Env, s.Dir, s.AcceptEnv = a.Shell, a.LoginShell, a.Env, a.Dir, a.AcceptEnv
	s.HangupGrace, s.Limits = a.HangupGrace, a.Limits
	s.SessionStart, s.SessionEnd, s.Logger = a.SessionStart, a.SessionEnd, a.Logger
	s.agent, s.changed = a, a.guestsChanged
}

// hello introduces the host: by its token at first, afterwards by what the gateway gave it for coming back.
func (a *Agent) hello() tunnel.Hello {
	h := tunnel.Hello{
		Task:         string(a.server.Task),
		HostKey:      a.server.HostKey.PublicKey().Marshal(),
		Labels:       a.Labels,
		EndToEndOnly: a.EndToEndOnly,
		PasswordHash: a.password.hash(),
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.renewal != "" {
		h.Renewal = a.renewal
	} else {
		h.Token = a.Token
	}
	return h
}

// dropRenewal forgets the credential for coming back, and tells whether there was one.
func (a *Agent) dropRenewal() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	had := a.renewal != ""
	a.renewal = ""
	return had
}

func (a *Agent) onState(s tunnel.State) {
	log := a.server.logger()
	switch s.Kind {
	case tunnel.StateConnected:
		if err := a.registeredAs(s.Welcome.Task); err != nil {
			a.fail(err)
			return
		}
		a.up = true
		a.registeredUntil(s.Welcome.Deadline)
		a.mu.Lock()
		a.renewal = s.Welcome.Renewal
		a.mu.Unlock()
		r := a.registration(s.Welcome)
		log.Info("registered", "gateway", a.Gateway, "address", r.Address)
		if a.Registered != nil {
			a.Registered(r)
		}
	case tunnel.StateLost:
		what := "tunnel lost"
		if !a.up {
			what = "cannot reach the gateway"
		}
		a.up = false
		a.linkLost()
		log.Warn(what, "gateway", a.Gateway, "error", s.Err, "retry", s.RetryIn)
	case tunnel.StateDraining:
		log.Info("gateway drains, dialing again", "gateway", a.Gateway, "retry", s.RetryIn)
	case tunnel.StateRefused: // the gateway gives the guests a moment
		a.server.dismiss(wordsOf(s.Err))
	}
	if a.State != nil {
		a.State(s)
	}
}

func (a *Agent) registration(w tunnel.Welcome) Registration {
	r := Registration{
		Task:        a.server.Task,
		Fingerprint: ssh.FingerprintSHA256(a.server.HostKey.PublicKey()),
		Deadline:    w.Deadline,

		OneTimePassword: a.password.show(),
	}
	if a.server.socket != nil {
		r.ControlSocket = a.server.socket.path
	}
	c, err := a.commands(w.Address)
	if err != nil {
		return r
	}
	r.Address = net.JoinHostPort(c.host, c.port)
	r.SSHCommand = c.spliced()
	if a.server.namesKeys() {
		r.EndToEndCommand, r.CertifiedCommand = c.pinned(), c.certified()
	}
	if a.EndToEndOnly {
		r.SSHCommand = r.EndToEndCommand
	}
	return r
}

// Sessions returns the number of sessions whose program runs.
func (a *Agent) Sessions() int { return a.server.Sessions() }

// LastActivity is that of [Server].
func (a *Agent) LastActivity() time.Time { return a.server.LastActivity() }
