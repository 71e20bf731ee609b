package tunnel

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// A link is the connection under yamux. It puts the header and the body of
// a frame, which yamux writes apart, into one Write and so into one TLS
// record and system call; it shows each header that arrives to inspect; and
// it notes when bytes were last read and since when a Write has been stuck,
// which is how life and death of the tunnel are told.
//
// One goroutine reads and one writes, as yamux does.
type link struct {
	net.Conn
	inspect inspector
	ended   func(error) // called when the connection fails or is closed

	start    time.Time
	lastRead atomic.Int64 // nanoseconds after start
	writing  atomic.Int64 // the same, of the Write under way; -1: none
	abrupt   atomic.Bool  // close without telling the other side
	listener atomic.Pointer[chan struct{}]

	out []byte // the frame being gathered; the writer's own
}

func newLink(c net.Conn, frame func(frameHeader) error, ended func(error)) *link {
	l := &link{Conn: c, inspect: inspector{frame: frame}, ended: ended, start: time.Now()}
	l.writing.Store(-1)
	return l
}

// Read reads what yamux will see, after inspecting it.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.lastRead.Store(int64(time.Since(l.start)))
		if l.listener.Load() != nil {
			close(*l.listener.Swap(nil))
		}
		if bad := l.inspect.scan(p[:n]); bad != nil {
			n, err = 0, bad
		}
	}
	if err != nil {
		l.ended(err)
	}
	return n, err
}

// Write holds a data frame's header back until its body is there.
func (l *link) Write(p []byte) (int, error) {
	if len(l.out) == 0 && len(p) == headerSize {
		if h := parseHeader(p); h.kind == kindData && h.length > 0 {
			l.out = append(l.out, p...)
			return len(p), nil
		}
	}
	b := p
	if len(l.out) > 0 {
		l.out = append(l.out, p...)
		b = l.out
		l.out = l.out[:0]
	}
	l.writing.Store(int64(time.Since(l.start)))
	_, err := l.Conn.Write(b)
	l.writing.Store(-1)
	if err != nil {
		l.ended(err)
		return 0, err
	}
	return len(p), nil
}

// Close closes the connection. It does not wait long for a socket that
// takes no more bytes: TLS would try for five seconds to say farewell.
func (l *link) Close() error {
	l.ended(errProtocol)
	if c, ok := l.Conn.(*tls.Conn); ok {
		raw := c.NetConn()
		if l.abrupt.Load() {
			raw.Close()
		}
		defer time.AfterFunc(time.Second, func() { raw.Close() }).Stop()
	}
	return l.Conn.Close()
}

// silence returns for how long nothing has been read, and stuck for how long
// the present Write has not returned.
func (l *link) silence() time.Duration {
	return time.Since(l.start) - time.Duration(l.lastRead.Load())
}

func (l *link) stuck() time.Duration {
	since := l.writing.Load()
	if since < 0 {
		return 0
	}
	return time.Since(l.start) - time.Duration(since)
}

// heard returns a channel that is closed when something is read from now on.
func (l *link) heard() <-chan struct{} {
	for {
		if ch := l.listener.Load(); ch != nil {
			return *ch
		}
		ch := make(chan struct{})
		if l.listener.CompareAndSwap(nil, &ch) {
			return ch
		}
	}
}
