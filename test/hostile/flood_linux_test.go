package hostile

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// flood keeps connections open that never sign in, and says when all are gone.
type flood struct {
	w      *world
	ctx    context.Context
	held   sync.WaitGroup
	source int
	conns  []net.Conn // all
	quiet  []net.Conn // nobody reads from these before wait does: the race detector knows 8128 goroutines
}

func newFlood(w *world) *flood {
	ctx, cancel := context.WithCancel(context.Background())
	f := &flood{w: w, ctx: ctx}
	w.t.Cleanup(func() {
		cancel()
		for _, c := range f.conns {
			c.Close()
		}
		f.held.Wait()
	})
	return f
}

// open makes n connections, each hundred from an address of their own, and has do
// keep each. With nil they say nothing.
func (f *flood) open(n int, address string, do func(context.Context, net.Conn)) {
	f.w.t.Helper()
	for i := range n {
		if i%100 == 0 {
			f.source++
		}
		c, err := dialFrom(f.ctx, fmt.Sprintf("127.9.%d.%d", f.source/250, 1+f.source%250), address)
		mustDo(f.w.t, err)
		f.conns = append(f.conns, c)
		if do == nil {
			f.quiet = append(f.quiet, c)
			continue
		}
		f.held.Go(func() {
			defer c.Close()
			do(f.ctx, c)
		})
	}
}

// wait returns when the gateway has hung up on all.
func (f *flood) wait() {
	f.w.t.Helper()
	for i, c := range f.quiet {
		if !drain(c) {
			f.w.t.Fatalf("connection %d is still open", i)
		}
	}
	f.held.Wait()
}

// silent says nothing until the other side hangs up.
func silent(_ context.Context, c net.Conn) { io.Copy(io.Discard, c) }

// drip sends a text one byte at a time.
func drip(text string) func(context.Context, net.Conn) {
	return func(ctx context.Context, c net.Conn) {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			io.Copy(io.Discard, c)
		}()
		tick := time.NewTicker(300 * time.Millisecond) // which keeps any timeout between bytes busy
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
					c.Close()
					<-gone
					return
				}
			case <-gone:
				return
			case <-ctx.Done():
				c.Close()
				<-gone
				return
			}
		}
	}
}

// tlsThen shakes hands, and goes on with do.
func (w *world) tlsThen(protocol string, do func(context.Context, net.Conn)) func(context.Context, net.Conn) {
	return func(ctx context.Context, c net.Conn) {
		tc := tls.Client(c, &tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1", NextProtos: []string{protocol}})
		if tc.HandshakeContext(ctx) == nil {
			do(ctx, tc)
		}
	}
}

// TestTenThousandSilentConnections, and slow ones of every kind: real logins go on
// meanwhile, and all that was held is given back when the time to sign in is over.
// With the default limits most are turned away; here all are let in.
func TestTenThousandSilentConnections(t *testing.T) {
	var limit syscall.Rlimit
	mustDo(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	n := min(10000, int(limit.Max)*3/4)
	w := newWorld(t, "limits:", "  handshake_timeout: 8s", "  unauthenticated: 100000", "  unauthenticated_per_source: 100000")
	w.startAgent("task-a", w.alice)
	w.startHost("task-b", w.bob, echo)
	session := w.dial("task-b", w.bob)
	before, _ := w.resident()
	descriptors := w.descriptors()

	f := newFlood(w)
	const slow = 25
	f.open(slow, w.ssh, drip("S"))
	f.open(slow, w.ssh, drip("SSH-2.0-x\r\n\x00\x00\x0f\x00\x04\x14"))
	f.open(slow, w.https, drip("SSH-2.0-"))
	f.open(slow, w.https, drip("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.open(slow, w.https, w.tlsThen("http/1.1", drip("GET / HTTP/1.1\r\nX: ")))
	f.open(slow, w.https, w.tlsThen("stagedoor-tunnel/1", silent))
	f.open(slow, w.https, w.tlsThen("stagedoor-tunnel/1", drip("\x00\x01\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00")))
	f.open(slow, w.private, drip("GET /metrics HTTP/1.1\r\nX: "))
	f.open(n/2, w.ssh, nil)
	f.open(n/2-8*slow, w.https, nil)
	pending := w.metric("stagedoor_unauthenticated_connections")
	took := []time.Duration{w.login("task-a", w.alice), w.login("task-a", w.alice)}
	if err := echoes(session); err != nil {
		t.Errorf("a session that was open: %v", err)
	}
	now, _ := w.resident()
	t.Logf("%d connections, %.0f of them pending: logins took %v, memory grew from %d to %d MiB", n, pending, took, before>>20, now>>20)
	if pending < float64(n)/2 {
		t.Errorf("only %.0f connections were pending: the test is not what it says", pending)
	}
	f.wait()
	eventually(t, "the places are free", func() bool { return w.metric("stagedoor_unauthenticated_connections") == 0 })
	eventually(t, "the descriptors are free", func() bool { return w.descriptors() <= descriptors+10 })
	w.intact()
}

// TestSilentConnectionsWithDefaults: silent connections from many addresses use up
// all the places for those who sign in, and keep coming; whoever means it gets in.
func TestSilentConnectionsWithDefaults(t *testing.T) {
	w := newWorld(t, "limits:", "  handshake_timeout: 20s")
	w.startAgent("task-a", w.alice)
	f := newFlood(w)
	f.open(1500, w.ssh, nil)
	f.open(1500, w.https, nil)
	eventually(t, "all places are taken", func() bool { return w.metric("stagedoor_unauthenticated_connections") >= 990 })
	var coming sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	coming.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if c, err := dialFrom(ctx, fmt.Sprintf("127.8.0.%d", 1+i%250), w.ssh); err == nil {
				defer c.Close()
			}
			if i >= 2000 {
				return
			}
		}
	})
	t.Logf("logins took %v and %v", w.login("task-a", w.alice), w.login("task-a", w.alice))
	stop()
	coming.Wait()
}
