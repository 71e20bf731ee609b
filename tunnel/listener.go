package tunnel

import (
	"crypto/ed25519"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// A Listener is the agent's side of a tunnel, a net.Listener whose
// connections are [*Stream]s. [Dialer.Dial] makes it. Its methods may be
// called at once.
type Listener struct {
	session       *session
	welcome       Welcome
	headerTimeout time.Duration
	log           *slog.Logger
	accepted      chan *Stream
	onMessage     func(Message) // nil: nobody is told

	closeOnce sync.Once
	closing   chan struct{} // no more streams are accepted
	retired   atomic.Bool   // by Keep, which has another one

	// Closed by handle, which the control stream's reader alone calls.
	drained chan struct{} // the gateway wants the agent to dial again
	stopped chan struct{} // the gateway has told the agent to stop
	stop    *Refusal      // why; set before stopped is closed
}

var _ net.Listener = (*Listener)(nil)

func newListener(s *session, headerTimeout time.Duration, log *slog.Logger) *Listener {
	return &Listener{
		session:       s,
		headerTimeout: headerTimeout,
		log:           log,
		accepted:      make(chan *Stream),
		closing:       make(chan struct{}),
		drained:       make(chan struct{}),
		stopped:       make(chan struct{}),
	}
}

// introduce opens the control stream, sends the Hello and reads the answer.
func (l *Listener) introduce(h Hello, key ed25519.PrivateKey, binding []byte) error {
	hello, err := h.appendSigned(nil, key, binding)
	if err != nil {
		return configError{err}
	}
	stream, err := l.session.mux.OpenStream()
	if err != nil {
		return err
	}
	l.session.setControl(newControl(l.session, stream, l.handle))
	// yamux fails a Write that was done by the time the session ended. As
	// the answer may have come nevertheless, only reading it decides.
	stream.Write(hello)
	l.welcome, err = readReply(stream)
	return err
}

// handle acts on a message from the gateway.
func (l *Listener) handle(m Message) {
	if l.onMessage != nil {
		l.onMessage(m)
	}
	switch {
	case m.Type == TypeDrain && !isClosed(l.drained):
		close(l.drained)
	case m.Type == TypeReplaced && !isClosed(l.stopped):
		l.stop = (&Refusal{Code: CodeReplaced, Message: m.Reason, ended: true}).plain()
		close(l.stopped)
	case m.Type == TypeOver && !isClosed(l.stopped):
		l.stop = (&Refusal{Code: CodeExpired, Message: m.Reason, ended: true}).plain()
		close(l.stopped)
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// acceptStreams takes streams from yamux as fast as they come, so that one whose
// header is slow keeps none waiting.
func (l *Listener) acceptStreams() {
	for {
		m, err := l.session.mux.AcceptStream()
		if err != nil {
			return // the session has ended
		}
		if l.session.reserve() != nil {
			l.session.run(func() { l.session.forget(m) })
			continue
		}
		st := &Stream{session: l.session, mux: m, welcome: l.welcome, halfOpen: true}
		l.session.register(st)
		l.session.run(func() { l.offer(st) })
	}
}

// offer reads a stream's header and gives it to Accept.
func (l *Listener) offer(st *Stream) {
	st.SetReadDeadline(time.Now().Add(l.headerTimeout))
	var err error
	if st.header, err = readStreamHeader(st); err != nil {
		l.log.Debug("stream closed", "error", err)
		st.Close()
		return
	}
	l.session.headed(st)
	st.SetReadDeadline(time.Time{})
	st.remote = guestAddr(st.header)
	select {
	case l.accepted <- st:
	case <-l.closing:
		st.Close()
	case <-l.session.done:
		st.Close()
	}
}

// Accept returns the next stream, a *Stream, whose header has been read. It
// returns an error that wraps net.ErrClosed, and tells the reason, when the
// Listener was closed or its tunnel has ended; Err has the reason itself.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case st := <-l.accepted:
		return st, nil
	case <-l.closing:
		return nil, ErrClosed
	case <-l.session.done:
		return nil, l.session.closedError()
	}
}

// Addr returns the tunnel's local address.
func (l *Listener) Addr() net.Addr { return l.session.link.LocalAddr() }

// Close accepts no more streams and tells the gateway so. Streams that were
// accepted go on; the tunnel ends when the last of them has been closed.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() { close(l.closing) })
	l.session.drain()
	return nil
}

// CloseNow ends the tunnel with all its streams, and returns when all that
// ran for it has.
func (l *Listener) CloseNow() error {
	l.session.close()
	return nil
}

// Welcome returns what the gateway answered.
func (l *Listener) Welcome() Welcome { return l.welcome }

// Control returns the control stream.
func (l *Listener) Control() *Control { return l.session.control }

// Done returns a channel that is closed when the tunnel has ended.
func (l *Listener) Done() <-chan struct{} { return l.session.done }

// Err tells why the tunnel has ended: ErrClosed after Close or CloseNow,
// ErrDead, or whatever happened to the connection. It is nil while the tunnel lives.
func (l *Listener) Err() error { return l.session.cause() }

// run starts f as part of what runs for the tunnel, unless it has ended.
func (s *session) run(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.wg.Go(f)
	}
}

// forget closes a stream that is not going to be registered.
func (s *session) forget(m *yamux.Stream) {
	m.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.early, m.StreamID())
}
