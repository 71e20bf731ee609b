package gateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/gateway/registry"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// troubledRegistry is the one in memory, with something that comes between.
type troubledRegistry struct {
	*registry.Memory
	claiming   func(o registry.Owner) // called before the claim
	claimed    func(o registry.Owner) // called when it was made
	failLookup atomic.Bool
}

func (r *troubledRegistry) Claim(ctx context.Context, task string, o registry.Owner) (registry.Claim, error) {
	if r.claiming != nil {
		r.claiming(o)
	}
	c, err := r.Memory.Claim(ctx, task, o)
	if r.claimed != nil {
		r.claimed(o)
	}
	return c, err
}

func (r *troubledRegistry) Lookup(ctx context.Context, task string) (registry.Owner, error) {
	if r.failLookup.Load() {
		return registry.Owner{}, errors.New("no connection to the registry")
	}
	return r.Memory.Lookup(ctx, task)
}

// TestTunnelsPerTaskAtATime: agents that come at the same time do not pass the
// limit side by side.
func TestTunnelsPerTaskAtATime(t *testing.T) {
	const limit, agents = 2, 5
	blocked := make(chan struct{})
	let := sync.OnceFunc(func() { close(blocked) })
	reg := &troubledRegistry{Memory: registry.NewMemory(), claiming: func(registry.Owner) { <-blocked }}
	w := newWorldWith(t, gateway.Options{Registry: reg}, func(s *gateway.Settings) { s.Limits.TunnelsPerTask = limit })
	t.Cleanup(let)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	d := w.tunnelDialer("task-1", w.token("task-1", time.Now()), key, testenv.Signer(t))
	results := make(chan error, agents)
	for range agents {
		go func() {
			l, err := d.Dial(t.Context())
			if err == nil {
				t.Cleanup(func() { l.CloseNow() })
			}
			results <- err
		}()
	}
	for range agents - limit {
		var refusal *tunnel.Refusal
		if err := await(t, results, "a refusal"); !errors.As(err, &refusal) || refusal.Code != tunnel.CodeLimit || !refusal.Retry {
			t.Errorf("%v, want code limit", err)
		}
	}
	let()
	for range limit {
		if err := await(t, results, "a tunnel"); err != nil {
			t.Error(err)
		}
	}
}

// TestClaimOvertaken: a newer host that comes while an older one is being
// admitted keeps the task.
func TestClaimOvertaken(t *testing.T) {
	k := testenv.NewKey(t, t.TempDir(), "alice")
	older := time.Now().Add(-time.Minute)
	claimed, let := make(chan struct{}), make(chan struct{})
	reg := &troubledRegistry{Memory: registry.NewMemory(), claimed: func(o registry.Owner) {
		if o.IssuedAt.Unix() == older.Unix() {
			close(claimed)
			<-let
		}
	}}
	w := newWorldWith(t, gateway.Options{Registry: reg})
	says := func(what string) func(*fakeHost, *tunnel.Stream) {
		return func(_ *fakeHost, s *tunnel.Stream) { io.WriteString(s, what) }
	}
	var starting sync.WaitGroup
	starting.Go(func() { w.startHost("task-1", w.token("task-1", older, k), says("older")) })
	await(t, claimed, "the older host's claim")
	w.startHost("task-1", w.token("task-1", time.Now(), k), says("newer"))
	close(let)
	starting.Wait()
	ch := mustJump(t, w.mustDial("somebody", k), "task-1")
	if got, err := io.ReadAll(ch); err != nil || string(got) != "newer" {
		t.Errorf("the guest was taken to the host that is %q, %v", got, err)
	}
}

// TestRetireWithoutRegistry: as long as nobody knows whether an agent was
// replaced it is not told so, which would be final.
func TestRetireWithoutRegistry(t *testing.T) {
	reg := &troubledRegistry{Memory: registry.NewMemory()}
	w := newWorldWith(t, gateway.Options{Registry: reg})
	w.startHost("task-1", w.token("task-1", time.Now().Add(-time.Minute)), answerAtEnd)
	reg.failLookup.Store(true)
	w.startHost("task-1", w.token("task-1", time.Now()), answerAtEnd)
	eventually(t, "the older tunnel drains", func() bool { return strings.Contains(w.log.String(), "its older tunnel drains") })
	if strings.Contains(w.log.String(), "host was replaced") {
		t.Error("the older agent was told that it was replaced")
	}
}

// drainWithGuest begins to drain while a guest stays.
func (w *world) drainWithGuest() {
	w.t.Helper()
	k := testenv.NewKey(w.t, w.dir, "guest")
	w.startHost("task-9", w.token("task-9", time.Now(), k), answerAtEnd)
	w.mustDial("task-9", k)
	eventually(w.t, "the guest is signed in", func() bool { return w.metric("stagedoor_guests") == "1" })
	drained := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(drained)
		w.server.Drain(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-drained
	})
	eventually(w.t, "the listeners close", func() bool {
		c, err := net.Dial("tcp", w.https)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// TestLateAgent: an agent whose connection was taken before the gateway began to
// drain is sent on.
func TestLateAgent(t *testing.T) {
	w := newWorld(t)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	d := w.tunnelDialer("task-1", w.token("task-1", time.Now()), key, testenv.Signer(t))
	connected, let := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(connected) })
	d.TLSConfig.VerifyConnection = func(tls.ConnectionState) error {
		once()
		<-let
		return nil
	}
	result := make(chan error, 1)
	go func() {
		_, err := d.Dial(t.Context())
		result <- err
	}()
	await(t, connected, "the connection")
	w.drainWithGuest()
	close(let)
	var refusal *tunnel.Refusal
	if err := await(t, result, "the answer"); !errors.As(err, &refusal) || refusal.Code != tunnel.CodeDraining || !refusal.Retry {
		t.Errorf("%v, want code draining", err)
	}
}

// TestLateUpgrade: so is who asks for a WebSocket on such a connection.
func TestLateUpgrade(t *testing.T) {
	w := newWorld(t)
	var conns []net.Conn
	for _, path := range []string{tunnel.WebSocketPath, gateway.GuestWebSocketPath} {
		c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: gateway\r\n")
		conns = append(conns, c)
	}
	w.drainWithGuest()
	for _, c := range conns {
		io.WriteString(c, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+tunnel.ALPN+"\r\n\r\n")
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "shutting down") {
			t.Errorf("%q, %v", answer, err)
		}
	}
}
