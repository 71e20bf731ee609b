package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/tunnel"
)

// serverVersion is what the agent calls itself to clients. OpenSSH's own client keeps eow@openssh.com and
// no-more-sessions@openssh.com to servers whose name begins like this (compat.c): "ssh host yes | head -1" would never end.
const serverVersion = "SSH-2.0-OpenSSH_compatible_Stagedoor"

// tunnelStream is a connection that came out of a tunnel.
type tunnelStream interface {
	net.Conn
	Header() tunnel.StreamHeader
	Welcome() tunnel.Welcome
}

var _ tunnelStream = (*tunnel.Stream)(nil)

// config is made afresh for each connection, so that nothing of one guest's sign-in is left for another's.
func (g *guest) config() *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config:                  auth.Algorithms(g.server.ExtraAlgorithms...),
		PublicKeyAuthAlgorithms: auth.PublicKeyAlgorithms(),
		MaxAuthTries:            g.server.Limits.withDefaults().AuthTries,
		ServerVersion:           serverVersion,
		NoClientAuthCallback:    g.signInSpliced, // gliderlabs turns NoClientAuth on, so it must decide
		AuthLogCallback:         g.authLog,
	}
	if g.spliced {
		c.AddHostKey(g.server.HostKey) // which the gateway was told, and no other
		return c
	}
	c.PublicKeyCallback = g.offered
	c.VerifiedPublicKeyCallback = g.verified
	c.KeyboardInteractiveCallback = g.explain
	for _, key := range g.server.host.keys {
		c.AddHostKey(key)
	}
	return c
}

// signInSpliced lets in the guest whom the gateway vouches for. Such a stream needs no proof of a key: only the gateway can
// open one, and the certificate says for whom it did.
func (g *guest) signInSpliced(ssh.ConnMetadata) (*ssh.Permissions, error) {
	if !g.spliced {
		return nil, ssh.ErrNoAuth
	}
	if g.server.EndToEndOnly {
		return nil, fmt.Errorf("%w: this host lets guests in end to end only", auth.ErrDenied)
	}
	ca, err := ssh.ParsePublicKey(g.welcome.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: the gateway's CA key: %w", auth.ErrDenied, err)
	}
	return auth.CheckGuestCertificate(g.header.Certificate, ca, g.server.Task, g.remote.Addr(), g.now())
}

// offered says whether a key would do. The guest has proved nothing yet, so nothing is noted.
func (g *guest) offered(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	return g.authorize(key)
}

// verified signs in a guest who has shown to hold a key. The permissions are made anew for it: what was answered to an offer,
// of this key or another, has no say.
func (g *guest) verified(_ ssh.ConnMetadata, key ssh.PublicKey, _ *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	return g.authorize(key)
}

func (g *guest) authorize(key ssh.PublicKey) (*ssh.Permissions, error) {
	p, err := g.judge(key)
	if name := auth.DescribeKey(key); err != nil && !slices.Contains(g.refusedKeys, name) {
		g.refusedKeys, g.reasons = append(g.refusedKeys, name), append(g.reasons, fmt.Sprintf("%.300s", err))
	}
	return p, err
}

func (g *guest) judge(key ssh.PublicKey) (*ssh.Permissions, error) {
	id := auth.Identity{Method: "publickey", Key: key, Remote: g.remote}
	task := auth.Task{ID: g.server.Task, Grant: g.server.Grant}
	guests := auth.AnyOf{
		auth.GrantKeys{Now: g.server.now},
		&forge.Authorizer{Resolver: g.server.Forges, Accounts: forge.OfGrant, Wait: accountsWait, Now: g.server.now},
	}
	p, err := guests.Authorize(context.Background(), id, task)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", auth.DescribeKey(key), err) // for the log, which has one line for all keys
	}
	return g.narrowed(p)
}

// explain tells a guest why none of its keys was good, as the gateway does: it is a keyboard-interactive sign-in that asks
// nothing and always fails. Clients show its text just before they give up.
func (g *guest) explain(_ ssh.ConnMetadata, client ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	err := fmt.Errorf("%w: no key that was offered is in the job's token", auth.ErrDenied)
	if g.explained { // OpenSSH asks three times
		return nil, err
	}
	g.explained = true
	_, clientErr := client("", refusalText(g.refusedKeys), nil, nil)
	return nil, errors.Join(err, clientErr)
}

func refusalText(offered []string) string {
	if len(offered) == 0 {
		return "Stagedoor: your ssh client offered no key to the job's host, and there is no other way in."
	}
	return "Stagedoor: the job's token names no key that your ssh client offered to its host:\n  " + strings.Join(offered, "\n  ") +
		"\nEnd to end the keys in that token count, and not those of the gateway's own file.\n" +
		"Ask whoever runs the job to let one of these keys in."
}

// lastError is what a sign-in failed by in the end: one error for each key says little more.
func lastError(err error) error {
	failed, ok := errors.AsType[*ssh.ServerAuthError](err)
	if !ok {
		return err
	}
	for _, e := range slices.Backward(failed.Errors) {
		if e != nil && !errors.Is(e, ssh.ErrNoAuth) {
			return e
		}
	}
	return ssh.ErrNoAuth
}

// authLog stops the handshake's timer once the guest is in, and notes failures.
func (g *guest) authLog(_ ssh.ConnMetadata, method string, err error) {
	if err == nil {
		g.handshake.Stop()
		return
	}
	g.log.Debug("sign-in refused", "method", method, "error", err)
}

// now is the time by which the guest's certificate is judged: the gateway's, as the clocks of CI machines are often wrong.
func (g *guest) now() time.Time {
	if g.clock != nil {
		return g.clock()
	}
	return g.server.now()
}

// gatewayClock returns a clock that goes like the one of the gateway that a listener's tunnel leads to; nil when l is none or
// the gateway did not say.
func gatewayClock(l net.Listener) func() time.Time {
	t, ok := l.(interface{ Welcome() tunnel.Welcome })
	if !ok || t.Welcome().Now.IsZero() {
		return nil
	}
	then, start := t.Welcome().Now, time.Now()
	return func() time.Time { return then.Add(time.Since(start)) }
}

// addrPortOf returns the address of an end of a connection; the zero value when it has no IP address.
func addrPortOf(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
