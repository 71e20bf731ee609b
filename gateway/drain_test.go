package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestDrain hands over from one gateway to its successor on the same addresses:
// the session that is open goes on, new guests reach the agent by the new
// gateway, and the old one ends when its guest has left.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	c := w.mustDial("task-1", k)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	stdin, _ := s.StdinPipe()
	stdout, _ := s.StdoutPipe()
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}

	drained := make(chan error, 1)
	go func() { drained <- w.server.Drain(t.Context()) }()
	eventually(t, "the listeners close", func() bool {
		c, err := net.Dial("tcp", w.ssh)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	successor := w.successor(t)
	eventually(t, "the agent dials the successor", func() bool { return strings.Contains(successor.log.String(), "host registered") })
	if out, err := successor.sshCommand("task-1", k, "echo new").CombinedOutput(); err != nil || string(out) != "new\n" {
		t.Errorf("by the new gateway: %v: %q", err, out)
	}

	stdin.Write([]byte("still here\n"))
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("by the old gateway: %v: %q", err, line)
	}
	select {
	case err := <-drained:
		t.Fatalf("the old gateway ended under its guest: %v", err)
	default:
	}
	stdin.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	c.Close()
	select {
	case err := <-drained:
		if err != nil {
			t.Errorf("drain: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the old gateway goes on without guests")
	}
}

// successor starts a second gateway with the same keys on the same addresses.
func (w *world) successor(t *testing.T) *world {
	t.Helper()
	next := *w
	next.log = &logBuffer{}
	server, err := gateway.New(w.settings, gateway.Options{Logger: next.log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	next.server = server
	done := make(chan struct{}, 2)
	for address, serve := range map[string]func(net.Listener) error{w.ssh: server.ServeSSH, w.https: server.ServeHTTPS} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			serve(l)
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		server.Close()
		<-done
		<-done
	})
	return &next
}

func TestDrainDeadline(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	a := w.startAgent(w.token("task-1", time.Now(), k))
	s, err := w.mustDial("task-1", k).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session runs", func() bool { return a.Sessions() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.server.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v, want an error that says that a guest was cut off", err)
	}
	eventually(t, "the session ends", func() bool { return a.Sessions() == 0 })
}

func TestReload(t *testing.T) {
	w := newWorld(t)
	k, late := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "late")
	w.startAgent(w.token("task-1", time.Now(), k))
	if err := w.server.Reload(gateway.Settings{}); err == nil {
		t.Error("settings without keys were taken")
	}
	if out, err := w.sshCommand("task-1", k, "true").CombinedOutput(); err != nil {
		t.Errorf("after a reload that failed: %v: %s", err, out)
	}
	next := w.settings
	withOperatorKeys(t, late.Line)(&next)
	next.CA = testenv.Signer(t) // agents that are connected believe the old one
	if err := w.server.Reload(next); err != nil {
		t.Fatal(err)
	}
	if out, err := w.sshCommand("task-1", late, "true").CombinedOutput(); err != nil {
		t.Errorf("a key that was added: %v: %s", err, out)
	}
}

// TestIncompleteSettings: a gateway that could not tell friend from stranger
// does not start.
func TestIncompleteSettings(t *testing.T) {
	w := newWorld(t)
	for name, breakIt := range map[string]func(*gateway.Settings){
		"no host key":              func(s *gateway.Settings) { s.HostKeys = nil },
		"no CA":                    func(s *gateway.Settings) { s.CA = nil },
		"no renewal key":           func(s *gateway.Settings) { s.RenewalKey = nil },
		"no certificate":           func(s *gateway.Settings) { s.Certificate = nil },
		"no token key":             func(s *gateway.Settings) { s.Tokens = &auth.TokenVerifier{} },
		"no guests":                func(s *gateway.Settings) { s.Guests = nil },
		"no address":               func(s *gateway.Settings) { s.Address = "" },
		"an option for an address": func(s *gateway.Settings) { s.Address = "-oProxyCommand=x:22" },
	} {
		s := w.settings
		breakIt(&s)
		if g, err := gateway.New(s, gateway.Options{}); err == nil {
			g.Close()
			t.Errorf("%s: the gateway starts", name)
		}
	}
}

// TestEndToEndOnlyHost: the guest is told why it cannot get in.
func TestEndToEndOnlyHost(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) { a.EndToEndOnly = true })
	out, err := w.sshCommand("task-1", k, "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "end-to-end connections only") {
		t.Errorf("%v: %q", err, out)
	}
}

// TestBlocksReachWhoDrains: an operator, who talks to the successor by then, throws
// out a guest of the gateway that drains.
func TestBlocksReachWhoDrains(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	w := newWorldWith(t, gateway.Options{StateDir: state})
	k := testenv.NewKey(t, w.dir, "alice")
	w.startHost("task-1", w.token("task-1", time.Now(), k), answerAtEnd)
	c := w.mustDial("task-1", k)
	drained := make(chan error, 1)
	go func() { drained <- w.server.Drain(t.Context()) }()
	server, err := gateway.New(w.settings, gateway.Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	next := *w
	next.server = server
	next.admin(gateway.AdminBlockPath, gateway.AdminRequest{Key: ssh.FingerprintSHA256(k.Signer.PublicKey())})
	if err := await(t, drained, "the last guest to be thrown out"); err != nil {
		t.Error(err)
	}
	c.Wait()
	if !strings.Contains(w.log.String(), "an operator has blocked you") {
		t.Error("the log does not say why")
	}
}
