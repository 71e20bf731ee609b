package hostile

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// deafConn is a guest's connection that at some point reads nothing any more.
type deafConn struct {
	net.Conn
	deaf  chan struct{}
	ended chan struct{}
	once  sync.Once
}

func newDeafConn(c net.Conn) *deafConn {
	return &deafConn{Conn: c, deaf: make(chan struct{}), ended: make(chan struct{})}
}

func (c *deafConn) Read(p []byte) (int, error) {
	select {
	case <-c.deaf:
		<-c.ended
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p)
	}
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// pour sends on a channel what its guest will not take, when it asks for it.
func pour(n int) func(ssh.NewChannel) {
	return func(nc ssh.NewChannel) {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		defer ch.Close()
		for r := range reqs {
			r.Reply(true, nil)
			if r.Type == "exec" {
				go ch.Write(make([]byte, n))
			}
		}
	}
}

// hog opens channels on a connection until it may not, and then stops reading.
func (w *world) hog(channels int) (opened int, err error) {
	raw, err := net.Dial("tcp", w.ssh)
	if err != nil {
		return 0, err
	}
	c := newDeafConn(raw)
	w.t.Cleanup(func() { c.Close() })
	conn, chans, reqs, err := ssh.NewClientConn(c, "", w.config("task-a", ssh.PublicKeys(w.alice.Signer)))
	if err != nil {
		return 0, err
	}
	client := ssh.NewClient(conn, chans, reqs)
	var open []ssh.Channel
	for range channels {
		ch, reqs, err := client.OpenChannel("session", nil)
		if err != nil {
			break // resource shortage
		}
		go ssh.DiscardRequests(reqs)
		open = append(open, ch)
	}
	close(c.deaf)
	for _, ch := range open {
		ch.SendRequest("exec", false, ssh.Marshal(struct{ Command string }{"pour"}))
	}
	return len(open), nil
}

// TestStalledChannels: one guest stalls 64 channels on each of 100 connections. The
// memory stays within the budget, and another guest, one of whose channels stalls
// as well, notices nothing.
func TestStalledChannels(t *testing.T) {
	const budget = 64 << 20
	// Besides the budget: what comes over the loopback until the gateway looks, which
	// it does ten times a second unless the machine is busy; what a hundred
	// connections take; and a quarter of all that is yet to be collected. A machine
	// with nothing else to do sees 160 to 190 MiB.
	const most = 6 * budget
	w := newWorld(t, "limits:", fmt.Sprintf("  buffered_bytes: %dMiB", budget>>20), "  channels_per_identity: 100000", "  channels_per_connection: 64")
	w.startHost("task-a", w.alice, pour(4<<20))
	w.startHost("task-b", w.bob, func(nc ssh.NewChannel) {
		if string(nc.ExtraData()) == "pour" {
			pour(4 << 20)(nc)
			return
		}
		echo(nc)
	})
	bob := w.dial("task-b", w.bob)
	paused, reqs, err := bob.OpenChannel("session", []byte("pour"))
	mustDo(t, err)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ssh.DiscardRequests(reqs)
	}()
	if _, err := paused.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"pour"})); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wg.Go(func() {
			for range 25 {
				n, err := w.hog(64)
				mu.Lock()
				total += n
				mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if err := echoes(bob); err != nil {
					t.Errorf("the innocent guest: %v", err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "the budget is kept", func() bool {
		stalled := w.metric("stagedoor_stalled_bytes")
		return stalled > 0 && stalled <= budget
	})
	now, peak := w.resident()
	t.Logf("%d channels of 6400 were opened; memory is at %d MiB and was at %d MiB", total, now>>20, peak>>20)
	if peak > most {
		t.Errorf("the gateway held %d MiB", peak>>20)
	}
	for range 10 {
		if err := echoes(bob); err != nil {
			t.Errorf("the innocent guest: %v", err)
		}
	}
	select {
	case <-gone:
		t.Error("the innocent guest's paused channel was closed")
	default:
	}
	w.intact()
}
