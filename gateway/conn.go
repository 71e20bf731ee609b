package gateway

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection from outside. It holds a place in the throttle until
// whoever is behind it has signed in, and notes when it was last heard of.
type conn struct {
	net.Conn
	id     string
	remote netip.AddrPort

	lastRead atomic.Int64 // Unix nanoseconds
	offence  atomic.Int32 // an offence: what it will have been if it is closed now
	judging  atomic.Bool  // see judge
	closed   atomic.Bool
	giveBack func()        // its place among those who are signing in
	charge   func(offence) // its address; once

	gone context.Context // ends when the other end has gone, or the connection is closed
	lost context.CancelFunc
}

// enter takes a connection in, or closes it when too many are signing in. The
// caller closes what it returns.
func (s *Server) enter(c net.Conn) (*conn, bool) {
	remote := remoteAddrPort(c.RemoteAddr())
	limits := s.settings.Load().Limits
	leave, reason := s.throttle.enter(sourceOf(remote.Addr()), limits, func() {
		s.metrics.refused.WithLabelValues("crowded out").Inc()
		c.Close() // whoever reads from it closes the rest
	})
	if reason != "" {
		s.metrics.refused.WithLabelValues(reason).Inc()
		s.log.Debug("turned a connection away", "remote", remote.String(), "limit", reason)
		c.Close()
		return nil, false
	}
	in := &conn{Conn: c, id: newID(), remote: remote}
	in.gone, in.lost = context.WithCancel(context.Background())
	in.lastRead.Store(time.Now().UnixNano())
	var charged sync.Once
	in.charge = func(o offence) { charged.Do(func() { s.penalise(remote, o) }) }
	var over *time.Timer // guarded by s.mu
	in.giveBack = func() {
		leave()
		s.mu.Lock()
		defer s.mu.Unlock()
		over.Stop()
		delete(s.pending, in)
	}
	s.mu.Lock()
	// One bound for all protocols: whoever has not signed in by then is gone,
	// however busy it looks.
	over = time.AfterFunc(limits.HandshakeTimeout+sniffTimeout, func() {
		in.blame(timedOut)
		in.Close()
	})
	s.pending[in] = struct{}{}
	s.mu.Unlock()
	if s.ctx.Err() != nil { // Close may have looked at pending before we were in it
		in.Close()
		return nil, false
	}
	return in, true
}

// Read reads from the other end and notes that it lives.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.lastRead.Store(time.Now().UnixNano())
	}
	if err != nil && !isTimeout(err) {
		c.lost()
	}
	return n, err
}

// leave gives back the place of a connection that has signed in.
func (c *conn) leave() {
	c.offence.Store(int32(noOffence))
	c.giveBack()
}

// blame says what a connection is closed for, unless it has signed in or that was
// said already.
func (c *conn) blame(o offence) { c.offence.CompareAndSwap(int32(noSignIn), int32(o)) }

// judge puts off what the end of the connection costs until verdict is called, by
// which time it is known what to blame it for: whoever speaks SSH or the tunnel's
// protocol closes it first, and says why afterwards.
func (c *conn) judge() (verdict func()) {
	c.judging.Store(true)
	return func() {
		c.judging.Store(false)
		if c.closed.Load() {
			c.pay()
		}
	}
}

// pay charges the address of a connection that has not signed in.
func (c *conn) pay() {
	if o := offence(c.offence.Load()); o != noOffence {
		c.charge(o)
	}
}

// Close closes the connection and gives back its place. One that has not signed
// in costs its address a penalty.
func (c *conn) Close() error {
	c.closed.Store(true)
	if !c.judging.Load() {
		c.pay()
	}
	c.giveBack()
	c.lost()
	return c.Conn.Close()
}

// silence is how long nothing was heard from the other end.
func (c *conn) silence() time.Duration {
	return time.Since(time.Unix(0, c.lastRead.Load()))
}
