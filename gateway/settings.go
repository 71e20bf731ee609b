package gateway

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/auth/issuer"
	"github.com/stagedoor/stagedoor/tunnel"
)

// Settings is what a gateway is told and may be told anew while it runs: see
// [Server.Reload]. Connections keep the settings they began with.
type Settings struct {
	// HostKeys sign the gateway's side of every guest's key exchange. At least
	// one is needed, at most one of each algorithm counts.
	HostKeys []ssh.Signer

	// NextHostKeys are announced beside HostKeys but not used yet: clients of
	// guests who come meanwhile know them when they move to HostKeys.
	NextHostKeys []ssh.Signer

	// ExtraAlgorithms are names of transport algorithms that guests are offered
	// beside [auth.Algorithms]; each has to pass [auth.CheckAlgorithm].
	ExtraAlgorithms []string

	// CA signs the short certificates by which agents know spliced guests.
	CA ssh.Signer

	// RenewalKey signs the credentials by which agents come back after their
	// token expired. Gateways that share it accept each other's agents.
	RenewalKey ed25519.PrivateKey

	// OtherRenewalKeys are keys whose credentials count as well: those that RenewalKey
	// has replaced, or that are going to replace it.
	OtherRenewalKeys []ed25519.PublicKey

	// Certificate is the TLS certificate of the HTTPS listener, in the form of
	// [tls.Config.GetCertificate].
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Tokens decides which hosts may register.
	Tokens *auth.TokenVerifier

	// Issuers are CI providers whose ID tokens are taken for host tokens. Tasks that
	// are derived from those are closed to Tokens. The caller closes it after the
	// gateway. Nil: none.
	Issuers *issuer.Set

	// Guests decides who may enter which task.
	Guests auth.Authorizer

	// Revoked says which keys and certificates let nobody in, whoever else would,
	// and end the connections of those who are in when they are revoked. Nil: none.
	Revoked *auth.RevokedFiles

	// Forges look up the keys of accounts that grants name, so that Guests, with a
	// [forge.Authorizer] of the same Resolver among them, lets these in. Settings
	// that replace others should have the same, which knows much already. The
	// caller closes it after the gateway. Nil: such accounts let nobody in.
	Forges *forge.Resolver

	// SignIn lets in people who say in a browser who they are. Nil: nobody.
	SignIn *SignIn

	// OneTimePasswords lets in one guest by the password of a task whose grant wants
	// that there is one: agents show it in their job's log. Guests needs an
	// [auth.OneTimePasswords].
	OneTimePasswords bool

	// Policy is the most that guests may do, as the agents are told who sign
	// guests in end to end. Guests who sign in here are held to what Guests
	// grants them. Nil: no narrowing.
	Policy *ssh.Permissions

	// Address is the host:port that guests give to ssh. It is sent to agents,
	// which print it.
	Address string

	// HTTPSAddress is the host:port by which agents and browsers reach the HTTPS
	// listener. The front page and the install script name it, and never what a
	// request calls the gateway. Default: none, and there is neither.
	HTTPSAddress string

	// Agents are the agents' programs that jobs download. Nil: none.
	Agents *Agents

	// Limits bounds what strangers, guests and hosts can make the gateway hold.
	Limits Limits

	// Penalties shuts out addresses that keep coming without signing in.
	Penalties Penalties
}

// Limits bounds what others can make a gateway hold. A zero field means its
// default.
type Limits struct {
	// HandshakeTimeout is how long a connection may take to sign in. Default 30 s.
	HandshakeTimeout time.Duration
	// Unauthenticated is how many connections may be signing in at a time, in
	// all. Default 1000.
	Unauthenticated int
	// UnauthenticatedPerSource is how many of them may come from one address
	// (IPv6: one /64). An address with live tunnels may have half of all,
	// because a whole CI fleet may share one. Default 64.
	UnauthenticatedPerSource int
	// AuthTries is how many keys a guest may offer on a connection. Default 6.
	AuthTries int
	// BrowserTimeout is how long a guest waits for somebody to sign in by a browser.
	// Default 5 min.
	BrowserTimeout time.Duration
	// BrowserWaiting is how many guests may wait for that at a time, in all. They are
	// not among Unauthenticated. Default 1000.
	BrowserWaiting int
	// BrowserWaitingPerSource is how many of them may come from one address (IPv6:
	// one /64). Default 64.
	BrowserWaitingPerSource int
	// ConnectionsPerIdentity is how many connections one identity may have open.
	// Default 512.
	ConnectionsPerIdentity int
	// ChannelsPerConnection is how many channels may be open on one guest's
	// connection. Default 128.
	ChannelsPerConnection int
	// ChannelsPerIdentity is how many channels one identity may have open over
	// all its connections. Default 512.
	ChannelsPerIdentity int
	// StreamsPerTunnel is how many guests' connections one host may serve at a
	// time. Default 256.
	StreamsPerTunnel int
	// TunnelsPerTask is how many tunnels one task may have at a time: the
	// current one and those that drain. Default 4.
	TunnelsPerTask int
	// BufferedBytes bounds what stalled channels may hold in memory in the
	// whole gateway, counted at 2 MiB for each direction that does not move.
	// Default 1 GiB.
	BufferedBytes int64
	// SessionTime ends a guest's connection after so long. Default 24 h;
	// negative: never.
	SessionTime time.Duration
	// KeepaliveInterval is how often a silent guest is asked for a sign of
	// life. Default 15 s.
	KeepaliveInterval time.Duration
	// KeepaliveCount is how many unanswered questions end the connection.
	// Default 3.
	KeepaliveCount int
	// HostTimeout bounds the wait for a host that is dialling again and for the
	// SSH handshake with it. Default 15 s.
	HostTimeout time.Duration
	// HostGrace is how long a task whose tunnel was lost is remembered, so that
	// its guests can sign in while the agent dials again. Default 30 s.
	HostGrace time.Duration
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.HandshakeTimeout, 30*time.Second)
	setDefault(&l.Unauthenticated, 1000)
	setDefault(&l.UnauthenticatedPerSource, 64)
	setDefault(&l.AuthTries, 6)
	setDefault(&l.BrowserTimeout, 5*time.Minute)
	setDefault(&l.BrowserWaiting, 1000)
	setDefault(&l.BrowserWaitingPerSource, 64)
	setDefault(&l.ConnectionsPerIdentity, 512)
	setDefault(&l.ChannelsPerConnection, 128)
	setDefault(&l.ChannelsPerIdentity, 512)
	setDefault(&l.StreamsPerTunnel, 256)
	setDefault(&l.TunnelsPerTask, 4)
	setDefault(&l.BufferedBytes, 1<<30)
	setDefault(&l.SessionTime, 24*time.Hour)
	setDefault(&l.KeepaliveInterval, 15*time.Second)
	setDefault(&l.KeepaliveCount, 3)
	setDefault(&l.HostTimeout, 15*time.Second)
	setDefault(&l.HostGrace, 30*time.Second)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate refuses settings that would leave the gateway open or of no use.
func (s *Settings) validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("gateway: "+what))
		}
	}
	need(len(s.HostKeys) > 0, "no host key: guests could not tell this gateway from another")
	need(s.CA != nil, "no CA key: agents could not tell guests from strangers")
	need(len(s.RenewalKey) == ed25519.PrivateKeySize, "no renewal key: agents could not come back")
	need(s.Certificate != nil, "no TLS certificate: agents could not connect")
	need(s.Tokens != nil && len(s.Tokens.Keys)+len(s.Tokens.KeySets) > 0, "no token key: no host could register")
	need(s.Guests != nil, "no way for guests to sign in")
	need(s.Limits.KeepaliveInterval > 0 && s.Limits.HandshakeTimeout > 0 && s.Limits.HostTimeout > 0 && s.Limits.BrowserTimeout > 0,
		"a limit that is a time is negative")
	if s.Tokens != nil && len(s.Tokens.Keys)+len(s.Tokens.KeySets) > 0 {
		if err := s.Tokens.Check(); err != nil {
			errs = append(errs, fmt.Errorf("gateway: token keys: %w", err))
		}
	}
	if _, err := auth.MarshalPolicy(s.Policy); err != nil {
		errs = append(errs, fmt.Errorf("gateway: policy: %w", err))
	}
	if _, _, err := tunnel.ParseAddress(s.Address); err != nil {
		errs = append(errs, fmt.Errorf("gateway: address for guests: %w", err))
	}
	if s.SignIn != nil && len(s.SignIn.Providers) > 0 {
		_, _, err := tunnel.ParseAddress(s.HTTPSAddress)
		need(err == nil, "no address of the HTTPS listener: links to sign in would lead nowhere")
	}
	return errors.Join(errs...)
}
