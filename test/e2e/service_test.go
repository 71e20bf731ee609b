package e2e

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// halfConn is a connection whose directions end one by one, TCP or unix.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// serve answers on a free port of the loopback interface, or at the path of a
// socket, until the test ends. A handler that is done closes its connection.
func serve(t *testing.T, address string, handle func(halfConn)) string {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	l, err := net.Listen(network, address)
	mustDo(t, err)
	var handlers sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(testenv.Patience))
				handle(c.(halfConn))
			})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		handlers.Wait()
	})
	return l.Addr().String()
}

// echo reads to the end before it sends everything back: nothing comes back
// unless the half-close has arrived, and nothing arrives if it was taken for a
// close.
func echo(c halfConn) {
	data, err := io.ReadAll(c)
	if err == nil {
		c.Write(data)
	}
}

// greeter speaks first, half-closes, and keeps what it is told afterwards.
type greeter struct {
	greeting []byte
	told     chan []byte
}

func newGreeter(size int) *greeter {
	greeting, _ := noise(size)
	return &greeter{greeting, make(chan []byte, 1)}
}

func (g *greeter) handle(c halfConn) {
	c.Write(g.greeting)
	c.CloseWrite()
	if data, err := io.ReadAll(c); err == nil {
		g.told <- data
	}
}

// dial connects to a port or a socket, and again until somebody listens: there
// is no event for that.
func dial(t *testing.T, address string) halfConn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	c := testenv.DialEventually(t, network, address)
	c.SetDeadline(time.Now().Add(testenv.Patience))
	return c.(halfConn)
}

// socket is a path for one, short enough for the kernel.
func socket(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "s")
}
