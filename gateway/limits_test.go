package gateway_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// hold keeps connections open that say nothing.
func hold(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// TestSilentConnectionsAreDropped: whoever says nothing is gone when the
// handshake's time is over, on both listeners.
func TestSilentConnectionsAreDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.HandshakeTimeout = 300 * time.Millisecond })
	for _, address := range []string{w.ssh, w.https} {
		for _, c := range hold(t, address, 3) {
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("a silent connection to %s was kept: %v", address, err)
			}
		}
	}
}

// TestSilentConnectionsDoNotHoldUp: a guest gets in past connections that are
// stuck in their handshake.
func TestSilentConnectionsDoNotHoldUp(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	hold(t, w.ssh, 20)
	hold(t, w.https, 20)
	if out, err := w.sshCommand("task-1", k, "true").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestBusyStrangersAreDropped: a connection that keeps the HTTPS port busy
// without signing in loses its place like a silent one.
func TestBusyStrangersAreDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) {
		s.Limits.HandshakeTimeout = 300 * time.Millisecond
		s.Limits.UnauthenticatedPerSource = 2
	})
	for range 2 {
		c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// A body that never comes.
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	}
	eventually(t, "their places are free", func() bool {
		_, err := w.dial("task-1")
		return err != nil && strings.Contains(err.Error(), "unable to authenticate")
	})
}

func TestUnauthenticatedPerSource(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.UnauthenticatedPerSource = 4 })
	k := testenv.NewKey(t, w.dir, "alice")
	held := hold(t, w.ssh, 4)
	for _, c := range held { // they are counted once the gateway has sent its version
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.dial("task-1", ssh.PublicKeys(k.Signer)); err == nil || strings.Contains(err.Error(), "unable to authenticate") {
		t.Fatalf("a fifth connection was served: %v", err)
	}
	held[0].Close()
	eventually(t, "the place is given back", func() bool {
		_, err := w.dial("task-1", ssh.PublicKeys(k.Signer))
		return err != nil && strings.Contains(err.Error(), "unable to authenticate")
	})
}

// TestTunnelsSpareTheirAddress: a fleet behind one address is not locked out by
// the limit per source, and cannot lock out others.
func TestTunnelsSpareTheirAddress(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.UnauthenticatedPerSource = 4 })
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	for _, c := range hold(t, w.ssh, 8) {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatalf("a connection from an address with a live tunnel was turned away: %v", err)
		}
	}
	w.startAgent(w.token("task-2", time.Now(), k))
}

// TestConnectionsOfOneIdentity: whoever has one key does not take every descriptor
// of the gateway, whatever names it signs in by; others are not concerned.
func TestConnectionsOfOneIdentity(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.ConnectionsPerIdentity = 2 })
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	w.startAgent(w.token("task-1", time.Now(), alice, bob))
	lives := func(user string, k testenv.Key) (*ssh.Client, bool) {
		c := w.mustDial(user, k)
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		return c, err == nil
	}
	first, ok := lives("task-1", alice)
	if _, also := lives("alice", alice); !ok || !also {
		t.Fatal("two connections are not there")
	}
	if _, ok := lives("somebody", alice); ok {
		t.Error("a third connection of the same key lives")
	}
	if _, ok := lives("task-1", bob); !ok {
		t.Error("another key is refused")
	}
	first.Close()
	eventually(t, "a closed connection's place is free", func() bool {
		_, ok := lives("task-1", alice)
		return ok
	})
}

func TestChannelLimits(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) {
		s.Limits.ChannelsPerConnection = 3
		s.Limits.ChannelsPerIdentity = 5
	})
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	open := func(c *ssh.Client, n int) (opened []ssh.Channel, err error) {
		for range n {
			ch, reqs, err := c.OpenChannel("session", nil)
			if err != nil {
				return opened, err
			}
			go ssh.DiscardRequests(reqs)
			opened = append(opened, ch)
		}
		return opened, nil
	}
	isShortage := func(err error) bool {
		var refused *ssh.OpenChannelError
		return errors.As(err, &refused) && refused.Reason == ssh.ResourceShortage
	}
	first, err := open(w.mustDial("task-1", k), 4)
	if len(first) != 3 || !isShortage(err) {
		t.Errorf("one connection opened %d channels, then %v; want 3 and a resource shortage", len(first), err)
	}
	second := w.mustDial("task-1", k)
	if opened, err := open(second, 3); len(opened) != 2 || !isShortage(err) {
		t.Errorf("a second connection opened %d channels, then %v; want 2 and a resource shortage", len(opened), err)
	}
	first[0].Close()
	eventually(t, "a closed channel's place is free", func() bool {
		opened, err := open(second, 1)
		return err == nil && len(opened) == 1
	})
}

// TestSilentGuestIsDropped: a guest whose client no longer answers is
// disconnected, and its session on the host ends.
func TestSilentGuestIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) {
		s.Limits.KeepaliveInterval = 500 * time.Millisecond
		s.Limits.KeepaliveCount = 2
	})
	k := testenv.NewKey(t, w.dir, "alice")
	a := w.startAgent(w.token("task-1", time.Now(), k))
	r := newRelay(t, w.ssh)
	c, err := ssh.Dial("tcp", r.Addr().String(), &ssh.ClientConfig{
		User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(k.Signer)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session runs", func() bool { return a.Sessions() == 1 })
	r.freeze()
	eventually(t, "the session ends", func() bool { return a.Sessions() == 0 })
	if !strings.Contains(w.log.String(), "did not answer keepalives") {
		t.Error("the log does not say why the guest was dropped")
	}
}

func TestSessionTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.SessionTime = 500 * time.Millisecond })
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	if out, err := w.sshCommand("task-1", k, "exec sleep 1000").CombinedOutput(); err == nil {
		t.Errorf("a session outlived its time: %s", out)
	}
}
