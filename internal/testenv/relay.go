package testenv

import (
	"net"
	"sync"
	"testing"
)

// Relay passes TCP connections on to another address. It can cut them, or let them
// fall silent, and tells how often something was said on them.
type Relay struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex // guards what follows
	conns   []net.Conn // both halves of each
	opened  int        // connections so far
	sent    int        // pieces that clients sent
	silent  int        // connections, from the first, that have fallen silent
	changed chan struct{}
}

// NewRelay listens on a free port of the loopback interface and ends with the
// test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	r := &Relay{listener: l, target: target, changed: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		r.serve()
		close(served)
	}()
	t.Cleanup(func() {
		l.Close()
		<-served // no connection is added any more
		r.Cut()
		r.wg.Wait()
	})
	return r
}

// Addr is where the relay listens, as host:port.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Cut closes all connections that are open. New ones work.
func (r *Relay) Cut() {
	r.mu.Lock()
	conns := r.conns
	r.conns = nil
	r.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// Silence has all connections so far pass nothing on any more, neither bytes nor
// their end. New ones work.
func (r *Relay) Silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = r.opened
}

func (r *Relay) isSilent(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return n <= r.silent
}

// Counts says how many connections there were, and in how many pieces their
// clients sent what they did. The channel is closed when either has grown.
func (r *Relay) Counts() (opened, sent int, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened, r.sent, r.changed
}

func (r *Relay) serve() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", r.target)
		if err != nil {
			c.Close()
			continue
		}
		var n int
		r.count(func() {
			r.opened++
			n = r.opened
			r.conns = append(r.conns, c, up)
		})
		r.wg.Go(func() { r.pass(n, up, c, func() { r.count(func() { r.sent++ }) }) })
		r.wg.Go(func() { r.pass(n, c, up, func() {}) })
	}
}

func (r *Relay) count(add func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	add()
	close(r.changed)
	r.changed = make(chan struct{})
}

// pass moves bytes of connection n one way until either end is gone; then both are,
// unless it has fallen silent.
func (r *Relay) pass(n int, to, from net.Conn, passed func()) {
	defer func() {
		if !r.isSilent(n) {
			to.Close()
			from.Close()
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		k, err := from.Read(buf)
		if k > 0 && !r.isSilent(n) {
			passed()
			if _, err := to.Write(buf[:k]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
