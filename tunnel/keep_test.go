package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A kept is a call of Keep under way.
type kept struct {
	states chan State
	result <-chan error
	cancel context.CancelFunc
}

// keep calls Keep with short times and records its states.
func keep(t *testing.T, d *Dialer, serve func(net.Listener) error) *kept {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	k := &kept{states: make(chan State, 1000), cancel: cancel}
	if d.MinBackoff == 0 {
		d.MinBackoff, d.MaxBackoff = time.Millisecond, 20*time.Millisecond
	}
	d.OnState = func(s State) { k.states <- s }
	k.result = run(func() error { return d.Keep(ctx, serve) })
	t.Cleanup(cancel)
	return k
}

// until returns the next state of the kind.
func (k *kept) until(t *testing.T, kind StateKind) State {
	t.Helper()
	for {
		if s := await(t, kind.String(), k.states); s.Kind == kind {
			return s
		}
	}
}

// stop ends Keep and checks how it returns.
func (k *kept) stop(t *testing.T) {
	t.Helper()
	k.cancel()
	if err := await(t, "Keep", k.result); err != context.Canceled {
		t.Errorf("Keep: %v", err)
	}
}

func dialEcho(t *testing.T, tun *Tunnel) {
	t.Helper()
	c, err := tun.Dial(t.Context(), testHeader)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	checkEcho(t, c)
}

func TestKeepComesBack(t *testing.T) {
	g := startGateway(t, nil)
	f := startForwarder(t, g.addr)
	k := keep(t, newDialer(t, f.addr), serveEcho)
	for range 3 {
		dialEcho(t, g.next(t))
		k.until(t, StateConnected)
		f.cut()
		if s := k.until(t, StateLost); s.Err == nil {
			t.Error("lost for no reason")
		}
	}
	tun := g.next(t)
	dialEcho(t, tun)
	k.stop(t)
	await(t, "the tunnel's end", tun.Done())
}

func TestKeepWaitsForAGateway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	k := keep(t, newDialer(t, addr), serveEcho)
	for range 5 {
		if s := k.until(t, StateLost); s.Err == nil || s.RetryIn > 20*time.Millisecond {
			t.Errorf("%+v", s)
		}
	}
	k.stop(t)
}

func TestKeepAfterAHalfOpenLink(t *testing.T) {
	g := startGateway(t, nil)
	f := startForwarder(t, g.addr)
	d := newDialer(t, f.addr)
	d.PingInterval, d.DeadAfter = 50*time.Millisecond, time.Second
	k := keep(t, d, serveEcho)
	old := g.next(t)
	dialEcho(t, old)
	f.goSilent()
	if s := k.until(t, StateLost); s.Err != ErrDead {
		t.Errorf("lost: %v", s.Err)
	}
	f.mu.Lock()
	f.swallow = false
	f.mu.Unlock()
	dialEcho(t, g.next(t))
	k.stop(t)
}

func TestKeepServesSideBySideOnDrain(t *testing.T) {
	g := startGateway(t, nil)
	k := keep(t, newDialer(t, g.addr), serveEcho)
	old := g.next(t)
	c, err := old.Dial(t.Context(), testHeader)
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, c)
	if err := old.Control().Send(t.Context(), Message{Type: TypeDrain}); err != nil {
		t.Fatal(err)
	}
	k.until(t, StateDraining)
	next := g.next(t)
	dialEcho(t, next)
	checkEcho(t, c) // the old tunnel is still served
	if m := await(t, "the old listener's end", old.Control().Messages()); m.Type != TypeDrain {
		t.Errorf("got %+v", m)
	}
	if _, err := old.Dial(t.Context(), testHeader); !errors.Is(err, ErrClosed) {
		t.Errorf("Dial of a drained tunnel: %v", err)
	}
	if isClosed(old.Done()) {
		t.Error("the old tunnel ended before its stream")
	}
	c.Close()
	await(t, "the old tunnel's end", old.Done())
	dialEcho(t, next)
	k.stop(t)
}

// Until another tunnel is up the drained one goes on as before.
func TestKeepServesOldTunnelUntilTheNewIsUp(t *testing.T) {
	var refuse atomic.Bool
	g := startGateway(t, func(g *gateway) {
		g.admit = func(context.Context, *Tunnel, Hello) (Welcome, error) {
			if refuse.Load() {
				return Welcome{}, &Refusal{Code: CodeDraining, Retry: true}
			}
			return Welcome{}, nil
		}
	})
	k := keep(t, newDialer(t, g.addr), serveEcho)
	old := g.next(t)
	refuse.Store(true)
	if err := old.Control().Send(t.Context(), Message{Type: TypeDrain}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		k.until(t, StateLost)
		<-g.errs
	}
	dialEcho(t, old)
	refuse.Store(false)
	for next := (*Tunnel)(nil); next == nil; {
		select {
		case next = <-g.tunnels:
			dialEcho(t, next)
		case <-g.errs:
		case <-time.After(hang):
			t.Fatal("no new tunnel")
		}
	}
	await(t, "the old tunnel's end", old.Done())
	k.stop(t)
}

func TestKeepEndsWhenRefused(t *testing.T) {
	for _, code := range []string{CodeBadToken, CodeExpired, "of the future"} {
		g := startGateway(t, func(g *gateway) {
			g.admit = func(context.Context, *Tunnel, Hello) (Welcome, error) { return Welcome{}, &Refusal{Code: code} }
		})
		k := keep(t, newDialer(t, g.addr), serveEcho)
		err := await(t, "Keep", k.result)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != code {
			t.Errorf("Keep: %v", err)
		}
		k.until(t, StateRefused)
	}
}

func TestKeepTriesAgainWhenTold(t *testing.T) {
	var tries atomic.Int32
	g := startGateway(t, func(g *gateway) {
		g.admit = func(context.Context, *Tunnel, Hello) (Welcome, error) {
			if tries.Add(1) < 4 {
				return Welcome{}, &Refusal{Code: CodeLimit, Retry: true, RetryAfter: 30 * time.Millisecond}
			}
			return Welcome{}, nil
		}
	})
	k := keep(t, newDialer(t, g.addr), serveEcho)
	for range 3 {
		if s := k.until(t, StateLost); s.RetryIn < 30*time.Millisecond {
			t.Errorf("comes back in %v", s.RetryIn)
		}
		await(t, "Accept", g.errs)
	}
	dialEcho(t, g.next(t))
	k.stop(t)
}

// The last word of a gateway counts though it hangs up right after it.
func TestKeepEndsWhenReplaced(t *testing.T) {
	g := startGateway(t, nil)
	for range 20 {
		k := keep(t, newDialer(t, g.addr), serveEcho)
		tun := g.next(t)
		// The error does not matter: the agent may have hung up already.
		tun.Control().Send(t.Context(), Message{Type: TypeReplaced, Reason: "by a newer one"})
		tun.Close()
		err := await(t, "Keep", k.result)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodeReplaced || r.Message != "by a newer one" || r.Retry {
			t.Fatalf("Keep: %v", err)
		}
		k.until(t, StateRefused)
	}
}

func TestKeepReturnsWhatServeReturns(t *testing.T) {
	broken := errors.New("no PTYs left")
	tests := map[string]struct {
		serve func(net.Listener) error
		want  error
	}{
		"an error":                     {func(net.Listener) error { return broken }, broken},
		"nothing":                      {func(net.Listener) error { return nil }, nil},
		"an error, having closed":      {func(l net.Listener) error { l.Close(); return broken }, broken},
		"nothing, having closed":       {func(l net.Listener) error { l.Close(); return nil }, nil},
		"Accept's error after closing": {func(l net.Listener) error { l.Close(); _, err := l.Accept(); return err }, ErrClosed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, nil)
			k := keep(t, newDialer(t, g.addr), tt.serve)
			if err := await(t, "Keep", k.result); err != tt.want {
				t.Errorf("Keep: %v, want %v", err, tt.want)
			}
			select {
			case tun := <-g.tunnels:
				await(t, "the tunnel's end", tun.Done())
			case <-g.errs: // gone before it was accepted
			}
		})
	}
}

// A server that shuts down closes its listener and finishes what it has begun.
func TestKeepLetsAServerFinish(t *testing.T) {
	g := startGateway(t, nil)
	shutdown := make(chan struct{})
	accepted := make(chan net.Conn, 1)
	k := keep(t, newDialer(t, g.addr), func(l net.Listener) error {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		accepted <- c
		<-shutdown
		l.Close()
		return nil
	})
	tun := g.next(t)
	c, err := tun.Dial(t.Context(), testHeader)
	if err != nil {
		t.Fatal(err)
	}
	served := await(t, "the stream", accepted)
	close(shutdown)
	await(t, "the agent's notice", tun.Control().Messages())
	go io.Copy(served, served)
	checkEcho(t, c)
	c.Close()
	served.Close()
	if err := await(t, "Keep", k.result); err != nil {
		t.Errorf("Keep: %v", err)
	}
}

func TestKeepReturnsOnlyWhenServeHas(t *testing.T) {
	g := startGateway(t, nil)
	var serving sync.WaitGroup
	serving.Add(1)
	release := make(chan struct{})
	k := keep(t, newDialer(t, g.addr), func(l net.Listener) error {
		_, err := l.Accept()
		serving.Done()
		<-release
		return err
	})
	k.until(t, StateConnected)
	k.cancel()
	serving.Wait()
	select {
	case err := <-k.result:
		t.Errorf("Keep returned too early: %v", err)
	default:
	}
	close(release)
	k.stop(t)
}

func TestKeepRefusesABadDialer(t *testing.T) {
	good := newDialer(t, "gateway.test")
	for name, change := range map[string]func(*Dialer){
		"gateway":  func(d *Dialer) { d.Gateway = "http://x" },
		"no key":   func(d *Dialer) { d.Key = nil },
		"no hello": func(d *Dialer) { d.Hello = nil },
		"no token": func(d *Dialer) { d.Hello = func() Hello { return Hello{Task: "t"} } },
		"too long": func(d *Dialer) {
			d.Hello = func() Hello { return Hello{Task: "t", Token: string(make([]byte, limitHello))} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := *good
			change(&d)
			k := keep(t, &d, serveEcho)
			if err := await(t, "Keep", k.result); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	k := &keeper{Dialer: &Dialer{MinBackoff: 100 * time.Millisecond, MaxBackoff: time.Second}}
	for i, most := range []time.Duration{100, 200, 400, 800, 1000, 1000, 1000} {
		most *= time.Millisecond
		if d := k.backoff(); d < most/2 || d > most {
			t.Errorf("wait %d is %v, want %v to %v", i, d, most/2, most)
		}
	}
	k.attempts = 1000
	if d := k.backoff(); d < time.Second/2 || d > time.Second {
		t.Errorf("after many attempts: %v", d)
	}
	k.attempts = 0
	if d := (&keeper{Dialer: &Dialer{}}).backoff(); d < defaultMinBackoff/2 || d > defaultMinBackoff {
		t.Errorf("by default: %v", d)
	}
}

// The time to wait starts over after a tunnel that lived, and only then.
func TestBackoffStartsOver(t *testing.T) {
	g := startGateway(t, nil)
	for _, tt := range []struct {
		name  string
		since time.Duration
		want  int
	}{{"lived", 31 * time.Second, 1}, {"did not", time.Second, 8}} {
		t.Run(tt.name, func(t *testing.T) {
			tun, l := connect(t, g, newDialer(t, g.addr))
			tun.Close()
			await(t, "the end", l.Done())
			k := &keeper{Dialer: &Dialer{MinBackoff: time.Microsecond}, attempts: 7}
			if err := k.watch(t.Context(), l, time.Now().Add(-tt.since)); err != nil {
				t.Fatal(err)
			}
			if k.attempts != tt.want {
				t.Errorf("attempts is %d, want %d", k.attempts, tt.want)
			}
		})
	}
}
