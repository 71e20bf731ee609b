//go:build linux

package agent

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// refusedOpens opens n channels that are refused, many at once.
func refusedOpens(t *testing.T, c *ssh.Client, n int, open func() error) {
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range n / 100 {
				if err := open(); err == nil {
					t.Error("a channel was opened")
					return
				}
			}
		})
	}
	wg.Wait()
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Fatalf("%q", out)
	}
}

func TestRefusedOpensCostNothing(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.Logger = nil })
	c := h.dial()
	host, port := hostPort(t, unusedAddress(t))
	for _, test := range []struct {
		n    int
		open func() error
	}{
		{90_000, func() error { _, _, err := openTo(c, host, 65536); return err }},
		{10_000, func() error { _, _, err := openTo(c, host, port); return err }}, // dialled
	} {
		if raced {
			test.n /= 10
		}
		refusedOpens(t, c, 2000, test.open)
		before := heap()
		refusedOpens(t, c, test.n, test.open)
		if grown := heap() - before; grown > 2<<20 {
			t.Errorf("after %d channels the heap has grown by %d bytes", test.n, grown)
		}
	}
}

// narrow makes sockets between which little fits. It has to be set ahead of the connection.
func narrow(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096)
	})
}

// deafConn reads nothing while it is plugged.
type deafConn struct {
	net.Conn
	mu sync.Mutex
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	return n, err
}

// A guest that opens channels and does not read the refusals loses its connection, not the host its memory.
func TestGuestDoesNotReadRefusals(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	l, err := (&net.ListenConfig{Control: narrow}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan struct{})
	go func() { defer close(served); h.Serve(l) }()
	t.Cleanup(func() { l.Close(); <-served })
	nc, err := (&net.Dialer{Control: narrow}).Dial("tcp", l.Addr().String())
	must(t, err)
	defer nc.Close()
	deaf := &deafConn{Conn: nc}
	conn, chans, requests, err := ssh.NewClientConn(deaf, "", &ssh.ClientConfig{
		User: "x", Auth: []ssh.AuthMethod{ssh.PublicKeys(h.guest)}, HostKeyCallback: ssh.FixedHostKey(h.HostKey.PublicKey()),
	})
	must(t, err)
	go ssh.DiscardRequests(requests)
	go func() {
		for range chans {
		}
	}()
	deaf.mu.Lock()
	var wg sync.WaitGroup
	for range 2 * maxUnsentRefusals {
		wg.Go(func() { conn.OpenChannel("bogus", nil) })
	}
	eventually(t, "the end of the connection", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.guests) == 0
	})
	deaf.mu.Unlock()
	wg.Wait()
	conn.Close()
}

// A guest that never answers what is opened for connections to its forwarding makes those wait, and nothing else.
func TestGuestDoesNotAnswerOpens(t *testing.T) {
	const room, callers = 10, 200
	h := newTestHost(t, func(s *Server) { s.Limits.ChannelsPerConnection = room })
	c := h.dial()
	opened := c.HandleChannelOpen("forwarded-tcpip")
	address := fmt.Sprintf("127.0.0.1:%d", listenPort(t, c, "127.0.0.1"))
	other := listenPort(t, c, "127.0.0.1")
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range callers {
		nc := dialTarget(t, "tcp", address)
		wg.Go(func() { io.Copy(io.Discard, nc) })
	}
	var offers []ssh.NewChannel
	for range room {
		offers = append(offers, <-opened)
	}
	for range 5 { // everything else goes on
		if out := output(t, c, "echo alive"); out != "alive\n" {
			t.Errorf("%q", out)
		}
	}
	select {
	case <-opened:
		t.Error("more channels than there is room for")
	default:
	}
	if n := runtime.NumGoroutine() - before - callers; n > 8*room {
		t.Errorf("%d goroutines", n)
	}
	// An answer makes room for the next.
	must(t, offers[0].Reject(ssh.Prohibited, "no"))
	offers[0] = <-opened
	// A forwarding can be cancelled while a connection to it waits for room.
	dialTarget(t, "tcp", fmt.Sprintf("127.0.0.1:%d", other))
	ask(t, c, "cancel-tcpip-forward", forwardArgs{"127.0.0.1", other}, true)
	c.Close()
	wg.Wait()
	h.Close()
}

// Connections that are accepted while their guest goes must not keep anything.
func TestConnectionsWhileTheGuestGoes(t *testing.T) {
	h := newTestHost(t, nil)
	for range 100 {
		c := h.dial()
		opened := c.HandleChannelOpen("forwarded-tcpip")
		go func() {
			for nc := range opened {
				if ch, requests, err := nc.Accept(); err == nil {
					go ssh.DiscardRequests(requests)
					ch.Close()
				}
			}
		}()
		address := fmt.Sprintf("127.0.0.1:%d", listenPort(t, c, "127.0.0.1"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if nc, err := net.Dial("tcp", address); err == nil {
					io.Copy(io.Discard, nc)
					nc.Close()
				}
			})
		}
		c.Close()
		wg.Wait()
	}
	h.Close()
}

// TestForwardsLeaveNothing ends forwarded connections in all ways and counts what is left.
func TestForwardsLeaveNothing(t *testing.T) {
	h := newTestHost(t, nil)
	targets := []string{target(t, "tcp", echo), target(t, "tcp", answerAtEOF), target(t, "tcp", func(c halfConn) {
		c.(*net.TCPConn).SetLinger(0) // a reset
	}), unusedAddress(t)}
	round := func(n int) {
		for i := range n {
			c, err := dialWith(t, h, h.addr, ssh.PublicKeys(h.guest))
			must(t, err)
			for j := range 8 {
				leakyForward(t, c, targets[j%len(targets)], i+j)
			}
			c.Close()
		}
		eventually(t, "the end of all connections", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.guests) == 0
		})
	}
	round(5)
	before := held(t)
	round(50)
	eventually(t, fmt.Sprintf("the same descriptors and goroutines as before, %v", before), func() bool {
		after := held(t)
		return after[0] <= before[0] && after[1] <= before[1]
	})
}

// leakyForward forwards one connection each way and ends them, or leaves that to the end of c.
func leakyForward(t *testing.T, c *ssh.Client, target string, how int) {
	t.Helper()
	if fc, err := c.Dial("tcp", target); err == nil {
		fmt.Fprint(fc, "some")
		switch how % 3 {
		case 0:
			fc.Close()
		case 1:
			fc.(interface{ CloseWrite() error }).CloseWrite()
		}
	}
	l, err := c.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	nc := dialTarget(t, "tcp", l.Addr().String())
	fc, err := l.Accept()
	must(t, err)
	switch how % 4 {
	case 0:
		fc.Close()
	case 1:
		l.Close()
	case 2:
		nc.(*net.TCPConn).SetLinger(0)
	}
	nc.Close()
}
