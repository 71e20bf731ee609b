package gateway

import (
	"net"
	"net/netip"
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
	leave    func()       // gives back the place among those who are signing in
}

// enter takes a connection in, or closes it when too many are signing in. The
// caller closes what it returns.
func (s *Server) enter(c net.Conn) (*conn, bool) {
	remote := remoteAddrPort(c.RemoteAddr())
	limits := s.settings.Load().Limits
	leave, reason := s.throttle.enter(sourceOf(remote.Addr()), limits)
	if reason != "" {
		s.metrics.refused.WithLabelValues(reason).Inc()
		s.log.Debug("turned a connection away", "remote", remote.String(), "limit", reason)
		c.Close()
		return nil, false
	}
	in := &conn{Conn: c, id: newID(), remote: remote}
	in.lastRead.Store(time.Now().UnixNano())
	var over *time.Timer // guarded by s.mu
	in.leave = func() {
		leave()
		s.mu.Lock()
		defer s.mu.Unlock()
		over.Stop()
		delete(s.pending, in)
	}
	s.mu.Lock()
	// One bound for all protocols: whoever has not signed in by then is gone,
	// however busy it looks.
	over = time.AfterFunc(limits.HandshakeTimeout+sniffTimeout, func() { in.Close() })
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
	return n, err
}

// Close closes the connection and gives back its place.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// silence is how long nothing was heard from the other end.
func (c *conn) silence() time.Duration {
	return time.Since(time.Unix(0, c.lastRead.Load()))
}
