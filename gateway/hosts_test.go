package gateway_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// refusal runs an agent that must be refused for good.
func (w *world) refusal(token string) *tunnel.Refusal {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	a := &agent.Agent{Gateway: w.https, Token: token, TLSConfig: &tls.Config{RootCAs: w.roots}, Dir: w.dir}
	err := a.Run(ctx)
	var refusal *tunnel.Refusal
	if !errors.As(err, &refusal) {
		w.t.Fatalf("the agent ended with %v, want a refusal", err)
	}
	return refusal
}

func TestBadTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	_, otherKey, _ := ed25519.GenerateKey(rand.Reader)
	mint := func(key ed25519.PrivateKey, issued, expires time.Time) string {
		raw, err := auth.MintToken(key, auth.Token{Task: "task-1", ID: rand.Text(), IssuedAt: issued, Expires: expires})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	now := time.Now()
	for _, test := range []struct{ name, token, code string }{
		{"signed by a stranger", mint(otherKey, now, now.Add(time.Hour)), tunnel.CodeBadToken},
		{"expired", mint(w.tokenKey, now.Add(-3*time.Hour), now.Add(-2*time.Hour)), tunnel.CodeExpired},
	} {
		t.Run(test.name, func(t *testing.T) {
			if r := w.refusal(test.token); r.Code != test.code || r.Retry {
				t.Errorf("refused with %+v, want code %s and no retry", r, test.code)
			}
		})
	}
}

// TestNewerAgentReplaces starts a second agent with a later token: the first
// ends, and stays away.
func TestNewerAgentReplaces(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	now := time.Now()
	who := func(name string) func(*agent.Agent) {
		return func(a *agent.Agent) { a.Env = []string{"WHO=" + name, "PATH=" + os.Getenv("PATH")} }
	}
	first := w.startAgent(w.token("task-1", now.Add(-2*time.Second), k), who("first"))
	w.startAgent(w.token("task-1", now, k), who("second"))
	select {
	case err := <-first.done:
		var refusal *tunnel.Refusal
		if !errors.As(err, &refusal) || refusal.Code != tunnel.CodeReplaced {
			t.Errorf("the first agent ended with %v, want a refusal with code replaced", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the first agent goes on")
	}
	out, err := w.sshCommand("task-1", k, "echo $WHO").CombinedOutput()
	if err != nil || string(out) != "second\n" {
		t.Errorf("%v: %q, want the second agent", err, out)
	}
	if r := w.refusal(w.token("task-1", now.Add(-time.Second), k)); r.Code != tunnel.CodeReplaced {
		t.Errorf("an agent with an older token was refused with %+v", r)
	}
}

// TestTokenOfSameTime: of two agents with tokens of the same second the one that
// has the task keeps it.
func TestTokenOfSameTime(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	now := time.Now()
	w.startAgent(w.token("task-1", now, k))
	if r := w.refusal(w.token("task-1", now, k)); r.Code != tunnel.CodeHeld {
		t.Errorf("refused with %+v, want code held", r)
	}
	if out, err := w.sshCommand("task-1", k, "true").CombinedOutput(); err != nil {
		t.Errorf("the agent that had the task lost it: %v: %s", err, out)
	}
}

// TestOlderTunnelDrains: an agent that dials again while its older tunnel still
// works keeps the sessions on that one, idle ones too.
func TestOlderTunnelDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	token := w.token("task-1", time.Now(), k)
	state := filepath.Join(w.dir, "state")
	same := func(a *agent.Agent) { a.StateDir = state }
	w.startAgent(token, same)
	s, err := w.mustDial("task-1", k).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	stdin, _ := s.StdinPipe()
	stdout, _ := s.StdoutPipe()
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	w.startAgent(token, same)
	eventually(t, "the older tunnel drains", func() bool { return strings.Contains(w.log.String(), "its older tunnel drains") })
	if out, err := w.sshCommand("task-1", k, "echo new").CombinedOutput(); err != nil || string(out) != "new\n" {
		t.Errorf("by the newer tunnel: %v: %q", err, out)
	}
	stdin.Write([]byte("still here\n"))
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("by the older tunnel: %v: %q", err, line)
	}
	stdin.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// startStranger runs an agent that is not let in yet and ends with the test.
func (w *world) startStranger(token string) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		a := &agent.Agent{Gateway: w.https, Token: token, TLSConfig: &tls.Config{RootCAs: w.roots}, Dir: w.dir}
		done <- a.Run(ctx)
	}()
	ended := make(chan error, 1)
	w.t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() { ended <- <-done; close(ended) }()
	return ended
}

// TestTokenOfSameTimeDoesNotWin: whoever has a token no newer than the agent's
// cannot take the task while that one dials again, nor keep it out; once the agent
// was given its time, a machine that took its place gets in.
func TestTokenOfSameTimeDoesNotWin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.HostGrace = 3 * time.Second })
	k := testenv.NewKey(t, w.dir, "alice")
	now := time.Now()
	r := newRelay(t, w.https)
	w.startAgent(w.token("task-1", now, k), func(a *agent.Agent) { a.Gateway = r.Addr().String() })
	r.lose()
	eventually(t, "the agent is gone", func() bool { return strings.Contains(w.log.String(), "tunnel ended") })
	w.startStranger(w.token("task-1", now, k))
	eventually(t, "the other is refused", func() bool { return strings.Contains(w.log.String(), "result=held") })
	eventually(t, "the other is let in when the agent does not come back", func() bool {
		return strings.Count(w.log.String(), "host registered") == 2
	})
}

// TestGrantIsJudgedAgain: a guest who waits for the host to come back, and meets
// another host instead, needs that one's grant.
func TestGrantIsJudgedAgain(t *testing.T) {
	w := newWorld(t)
	old, other := testenv.NewKey(t, w.dir, "old"), testenv.NewKey(t, w.dir, "other")
	r := newRelay(t, w.https)
	w.startAgent(w.token("task-1", time.Now().Add(-time.Minute), old), func(a *agent.Agent) { a.Gateway = r.Addr().String() })
	r.lose()
	eventually(t, "the host is gone", func() bool { return strings.Contains(w.log.String(), "tunnel ended") })
	c := w.mustDial("task-1", old) // signed in by the grant that is remembered
	w.startAgent(w.token("task-1", time.Now(), other))
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	s.Stderr = &stderr
	if err := s.Run("true"); err == nil || !strings.Contains(stderr.String(), "does not let you in") {
		t.Errorf("%v: %q", err, stderr.String())
	}
}

// relay is a TCP relay between agents and the gateway that can fall silent.
type relay struct {
	net.Listener
	target string

	mu     sync.Mutex // guards what follows
	stop   chan struct{}
	frozen chan struct{} // closed: bytes are swallowed
}

func newRelay(t *testing.T, target string) *relay {
	r := &relay{Listener: testenv.Listen(t), target: target, stop: make(chan struct{}), frozen: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := r.Accept()
			if err != nil {
				return
			}
			go r.forward(c, r.current())
		}
	}()
	t.Cleanup(func() {
		r.Close()
		r.cut()
		<-done
	})
	return r
}

func (r *relay) forward(c net.Conn, stop <-chan struct{}) {
	defer c.Close()
	up, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer up.Close()
	go r.copy(up, c)
	go r.copy(c, up)
	<-stop
}

// copy passes bytes on until the relay is frozen, from when on it swallows them.
func (r *relay) copy(to io.WriteCloser, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-r.frozen:
			n = 0
		default:
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			to.Close()
			return
		}
	}
}

// freeze stops forwarding without closing anything, like a link that died.
func (r *relay) freeze() { close(r.frozen) }

func (r *relay) current() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stop
}

// cut ends what is connected.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.stop)
	r.stop = make(chan struct{})
}

// lose ends what is connected, for good.
func (r *relay) lose() {
	r.Close()
	r.cut()
}

// TestGuestWaitsForRedial cuts the tunnel and connects at once: the guest is
// signed in and waits for the agent, instead of being told that it has no
// permission.
func TestGuestWaitsForRedial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	r := newRelay(t, w.https)
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) { a.Gateway = r.Addr().String() })
	r.cut()
	eventually(t, "the gateway notices that the tunnel is gone", func() bool {
		return strings.Contains(w.log.String(), "tunnel ended")
	})
	if out, err := w.sshCommand("task-1", k, "echo back").CombinedOutput(); err != nil || string(out) != "back\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// TestReturnAfterTokenExpired registers with a token that expires, and comes
// back with the renewal.
func TestReturnAfterTokenExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) { s.Tokens.Leeway = time.Nanosecond })
	k := testenv.NewKey(t, w.dir, "alice")
	expires := time.Now().Add(3 * time.Second)
	token, err := auth.MintToken(w.tokenKey, auth.Token{Task: "task-1", ID: rand.Text(), IssuedAt: time.Now(), Expires: expires,
		Grant: auth.Grant{AuthorizedKeys: []string{k.Line}}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(t, w.https)
	w.startAgent(token, func(a *agent.Agent) { a.Gateway = r.Addr().String() })
	eventually(t, "the token expires", func() bool {
		_, err := w.settings.Tokens.Verify(t.Context(), token)
		return errors.Is(err, auth.ErrTokenExpired)
	})
	r.cut()
	eventually(t, "the agent comes back", func() bool { return strings.Count(w.log.String(), "host registered") == 2 })
	if out, err := w.sshCommand("task-1", k, "echo back").CombinedOutput(); err != nil || string(out) != "back\n" {
		t.Errorf("%v: %q", err, out)
	}
}

func TestDeadlineEndsRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	token, err := auth.MintToken(w.tokenKey, auth.Token{Task: "task-1", ID: rand.Text(), IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: []string{k.Line}, Until: time.Now().Add(2 * time.Second)}})
	if err != nil {
		t.Fatal(err)
	}
	a := w.startAgent(token)
	select {
	case err := <-a.done:
		var refusal *tunnel.Refusal
		if !errors.As(err, &refusal) || refusal.Code != tunnel.CodeExpired {
			t.Errorf("the agent ended with %v, want a refusal with code expired", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the agent goes on after its deadline")
	}
}

// TestTunnelOverWebSocket is what an agent does where only HTTPS gets out.
func TestTunnelOverWebSocket(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) { a.Gateway = "wss://" + w.https })
	if err := os.WriteFile(filepath.Join(w.dir, "report.xml"), []byte("<ok/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := w.sshCommand("task-1", k, "cat report.xml").CombinedOutput(); err != nil || string(out) != "<ok/>" {
		t.Errorf("%v: %q", err, out)
	}
}
