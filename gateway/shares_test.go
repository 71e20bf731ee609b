package gateway_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestIdentityIsTheKey: channels are counted for each key, whatever name it has
// and under whatever name it comes.
func TestIdentityIsTheKey(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.ChannelsPerIdentity = 2 })
	first, second := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, t.TempDir(), "alice")
	renamed := first
	renamed.Line = string(ssh.MarshalAuthorizedKey(first.Signer.PublicKey()))[:len(ssh.MarshalAuthorizedKey(first.Signer.PublicKey()))-1] + " bob"
	w.startHost("task-1", w.token("task-1", time.Now(), first, second), answerAtEnd)
	w.startHost("task-2", w.token("task-2", time.Now(), renamed), answerAtEnd)
	mustJump(t, w.mustDial("task-1", first), "task-1")
	mustJump(t, w.mustDial("task-2", first), "task-2")
	if _, err := jumpTo(w.mustDial("task-2", first), "task-2"); err == nil {
		t.Error("a key had more channels under another name than it may")
	}
	mustJump(t, w.mustDial("task-1", second), "task-1")
}

// TestShareOfTrustedSource: an address with a live tunnel may have half of all
// that are signing in, and no more; without one as few as any other.
func TestShareOfTrustedSource(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) {
		s.Limits.Unauthenticated = 12
		s.Limits.UnauthenticatedPerSource = 2
	})
	h := w.startHost("task-1", w.token("task-1", time.Now()), answerAtEnd)
	taken := func() (n int) {
		conns := hold(t, w.ssh, 10)
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil {
				n++
			}
		}
		for _, c := range conns {
			c.Close()
		}
		eventually(t, "nobody is signing in", func() bool { return w.metric("stagedoor_unauthenticated_connections") == "0" })
		return n
	}
	if n := taken(); n != 6 {
		t.Errorf("with a tunnel %d of 10 connections were taken, want 6", n)
	}
	h.end()
	eventually(t, "the tunnel is gone", func() bool { return w.metric("stagedoor_tunnels") == "0" })
	if n := taken(); n != 2 {
		t.Errorf("without a tunnel %d of 10 connections were taken, want 2", n)
	}
}

// TestWebSocketGuestsLeaveNothing: what the library holds for a guest that came
// over a WebSocket is freed when it has gone.
func TestWebSocketGuestsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	client := w.httpClient()
	visit := func(n int) {
		for range n {
			ws, _, err := websocket.Dial(t.Context(), "wss://"+w.https+gateway.GuestWebSocketPath, &websocket.DialOptions{HTTPClient: client})
			if err != nil {
				t.Fatal(err)
			}
			nc := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
			if _, err := nc.Read(make([]byte, 4)); err != nil { // the gateway's version
				t.Fatal(err)
			}
			ws.CloseNow()
		}
		client.CloseIdleConnections()
		eventually(t, "nobody is signing in", func() bool { return w.metric("stagedoor_unauthenticated_connections") == "0" })
	}
	visit(20) // what is made once is made now
	before := settledHeap()
	const n = 200
	visit(n)
	eventually(t, "the heap is as before", func() bool { return settledHeap() < before+n*2<<10 })
}

// settledHeap runs the collector twice: what has a finalizer goes the second time.
func settledHeap() uint64 {
	runtime.GC()
	heap, _ := heapAndGoroutines()
	return heap
}
