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
package agent

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/stagedoor/stagedoor/auth"
)

// Agent keeps a host reachable: a [Server] behind a tunnel that is dialled again whenever it is lost. Gateway and Token are
// required; the zero value of every other field works. An Agent must not be changed once Run was called.
type Agent struct {
	// Gateway is the gateway's HTTPS address: host, host:port (443) or a URL.
	Gateway string
	// Token is the host token. It names the task and carries the grant.
	Token string
	// TLSConfig is used towards the gateway; nil trusts the system's roots.
	TLSConfig *tls.Config
	// StateDir keeps the agent's keys between runs; empty makes fresh ones for each run.
	StateDir string
	// EndToEndOnly refuses guests that the gateway vouches for, so that only the keys of the grant open a session.
	EndToEndOnly bool

	// Shell, Env, Dir, AcceptEnv, HangupGrace and Limits are those of [Server].
	Shell       string
	Env         []string
	Dir         string
	AcceptEnv   []string
	HangupGrace time.Duration
	Limits      Limits

	// Labels describe the host to the gateway.
	Labels map[string]string

	// Registered is called each time the gateway has let the host in, from one goroutine at a time.
	Registered func(Registration)
	// SessionStart and SessionEnd are those of [Server].
	SessionStart func(SessionInfo)
	SessionEnd   func(SessionInfo)
	// Logger may be nil: then nothing is logged.
	Logger *slog.Logger

	server Server
}

// Registration says how guests reach a registered host.
type Registration struct {
	Task auth.TaskID
	// Address is the gateway's SSH address, host:port.
	Address string
	// SSHCommand is what a guest types. It is built here from checked parts, never taken from the gateway.
	SSHCommand string
	// Fingerprint is the SHA-256 fingerprint of the agent's host key, which end-to-end guests see.
	Fingerprint string
	// Deadline is when the registration ends; zero means that the gateway set none.
	Deadline time.Time
}

// Run serves guests until ctx ends or the gateway refuses the host for good. It returns ctx.Err() or the *tunnel.Refusal. All
// sessions have ended and all their processes are gone when it returns. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Sessions returns the number of open sessions.
func (a *Agent) Sessions() int { return a.server.Sessions() }

// LastActivity returns when a guest last sent anything; zero when none ever did.
func (a *Agent) LastActivity() time.Time { return a.server.LastActivity() }
