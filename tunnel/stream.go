package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// maxFrame is the most data in one frame, so that bulk on one stream does
// not keep a keystroke on another waiting. With its header it fills three
// TLS records, and it holds a whole SSH packet.
const maxFrame = 3*16384 - headerSize

// errPeerClosed is what Write returns once the other side has closed.
var errPeerClosed = fmt.Errorf("tunnel: the other side closed the stream: %w", io.ErrClosedPipe)

// errWriteClosed is what Write returns after CloseWrite.
var errWriteClosed = fmt.Errorf("tunnel: the stream was closed for writing: %w", io.ErrClosedPipe)

// A Stream is one flow in a tunnel, a net.Conn. Its methods may be called at
// once.
//
// When one side of a spliced stream calls Close the other reads what was sent
// before, then io.EOF, and can write no more. On an end-to-end stream it can:
// io.EOF there means only that the other side writes no more, see CloseWrite.
// Either way it has to call Close to give its own end free. A stream whose
// tunnel was lost ends with an error that wraps io.ErrUnexpectedEOF, not with
// io.EOF.
//
// Deadlines are those of net.Conn with one exception: while the tunnel's
// connection takes no more bytes at all, a Write already begun returns only
// when it does or when the tunnel is dead, after DeadAfter.
type Stream struct {
	session *session
	mux     *yamux.Stream
	header  StreamHeader
	welcome Welcome
	remote  net.Addr

	readDeadline  atomic.Int64 // Unix nanoseconds; 0: none
	writeDeadline atomic.Int64
	closed        atomic.Bool // Close was called
	writeClosed   atomic.Bool // CloseWrite was called
	peerClosed    atomic.Bool // nothing more comes from the other side
	active        atomic.Bool // read from since the watchdog came by

	// Guarded by session.mu.
	halfOpen bool        // the other side's FIN is not answered before Close; or not known yet
	queued   bool        // to be closed in yamux, or closed there
	muxDone  bool        // closed in yamux: the other side has been told
	gone     bool        // the other side had its time to close
	released bool        // its slot was given back
	linger   *time.Timer // ends that time
}

var _ net.Conn = (*Stream)(nil)

// open opens a stream, for which a slot was reserved, and sends its header.
// It waits for the connection to take both, for DeadAfter at most.
func (s *session) open(h StreamHeader) (*Stream, error) {
	m, err := s.mux.OpenStream()
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release()
		return nil, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	st := &Stream{session: s, mux: m, header: h, halfOpen: h.Mode == ModeEndToEnd}
	s.register(st)
	if err := writeFrame(st, h, limitHeader); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// register makes st known under its number, for which a slot was reserved.
func (s *session) register(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := st.mux.StreamID()
	s.streams[id] = st
	if s.early[id] {
		delete(s.early, id)
		s.peerClosed(id)
	}
}

// headed notes that a stream's header was read, which says whether the stream
// has a half-close.
func (s *session) headed(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.halfOpen = st.header.Mode == ModeEndToEnd
	if st.peerClosed.Load() {
		s.answer(st)
	}
}

// peerClosed notes that the other side has closed a stream. The caller holds mu.
func (s *session) peerClosed(id uint32) {
	st := s.streams[id]
	switch {
	case st != nil:
		st.peerClosed.Store(true)
		s.answer(st)
	case id != controlStream && len(s.early) < s.limit:
		s.early[id] = true
	}
}

// answer closes here what the other side has closed, unless the stream has a
// half-close: what has arrived can still be read, and as nothing else is to
// come both sides can let go of it at once. yamux alone would wait until the
// user has read to the end, or five minutes. The caller holds mu.
func (s *session) answer(st *Stream) {
	if !st.halfOpen {
		s.closeLater(st)
	}
	s.settle(st)
}

// closeLater has st closed in yamux, on another goroutine: that waits for
// the connection to take a frame. The caller holds mu.
func (s *session) closeLater(st *Stream) {
	if st.queued || s.err != nil {
		return
	}
	st.queued = true
	s.closers = append(s.closers, st)
	if len(s.closers) == 1 {
		s.wg.Go(s.closeStreams)
	}
}

// closeStreams closes in yamux what is queued.
func (s *session) closeStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.closers) > 0 {
		st := s.closers[0]
		s.mu.Unlock()
		st.mux.Close()
		s.mu.Lock()
		st.muxDone = true
		s.closers = s.closers[1:]
		s.settle(st)
	}
}

// settle gives a stream's slot back once both users and both yamuxes are
// done with it, or the other side has had closeTimeout. The caller holds mu.
func (s *session) settle(st *Stream) {
	if st.released || !st.muxDone || s.err != nil {
		return
	}
	if !st.peerClosed.Load() && !st.gone {
		if st.linger == nil {
			st.linger = time.AfterFunc(closeTimeout, func() { s.expire(st) })
		}
		return
	}
	if st.linger != nil {
		st.linger.Stop()
	}
	if !st.closed.Load() {
		return
	}
	st.released = true
	delete(s.streams, st.mux.StreamID())
	s.release()
}

// expire gives up waiting for the other side to close st, as yamux does at the
// same time, with a reset.
func (s *session) expire(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.gone = true
	s.settle(st)
}

// Header returns what the gateway said of the stream when it opened it.
func (s *Stream) Header() StreamHeader { return s.header }

// Welcome returns the Welcome of the stream's tunnel.
func (s *Stream) Welcome() Welcome { return s.welcome }

// Read reads from the stream. See [Stream] for how one ends.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.usable(&s.readDeadline); err != nil {
		return 0, err
	}
	n, err := s.mux.Read(p)
	if n > 0 && !s.active.Load() {
		s.active.Store(true)
	}
	if err == io.EOF && s.peerClosed.Load() && !s.closed.Load() {
		return n, io.EOF
	}
	return n, s.explain(err)
}

// Write writes to the stream. It returns when the tunnel's connection has
// taken everything.
func (s *Stream) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		if err := s.usable(&s.writeDeadline); err != nil {
			return total, err
		}
		if s.writeClosed.Load() || s.peerClosed.Load() && s.header.Mode != ModeEndToEnd {
			return total, s.closedForWriting()
		}
		n, err := s.mux.Write(p[total:min(len(p), total+maxFrame)])
		total += n
		if err != nil {
			return total, s.explain(err)
		}
	}
	return total, nil
}

// closedForWriting says which side has closed the stream for writing.
func (s *Stream) closedForWriting() error {
	if s.writeClosed.Load() {
		return errWriteClosed
	}
	return errPeerClosed
}

// usable reports what yamux does not look at while there is data or window.
func (s *Stream) usable(deadline *atomic.Int64) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	if d := deadline.Load(); d != 0 && time.Now().UnixNano() >= d {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// explain puts yamux's errors into the words of package net.
func (s *Stream) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load():
		return net.ErrClosed
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	}
	if cause := s.session.cause(); cause != nil {
		return fmt.Errorf("tunnel lost: %w: %w", cause, io.ErrUnexpectedEOF)
	}
	if errors.Is(err, yamux.ErrStreamClosed) {
		return s.closedForWriting()
	}
	return fmt.Errorf("tunnel: stream: %w", noEOF(err))
}

// CloseWrite says that nothing more will be written, and never blocks. What the
// other side writes can be read until it closes too, for which it has five
// minutes: then reads fail. Close is still to be called. Only end-to-end streams
// have it; on others it returns an error that wraps errors.ErrUnsupported.
func (s *Stream) CloseWrite() error {
	if s.header.Mode != ModeEndToEnd {
		return fmt.Errorf("tunnel: half-close of a spliced stream: %w", errors.ErrUnsupported)
	}
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.writeClosed.Store(true)
	s.session.closeLater(s)
	return nil
}

// Close ends the stream in both directions and never blocks. A Read or Write
// under way returns net.ErrClosed, what was written before arrives. Both
// sides let go of the stream as soon as the other has been told.
func (s *Stream) Close() error {
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	// yamux lets readers sleep on in a closed stream.
	s.mux.SetDeadline(time.Unix(1, 0))
	s.session.closeLater(s)
	s.session.settle(s)
	return nil
}

// LocalAddr returns the tunnel's own address.
func (s *Stream) LocalAddr() net.Addr { return s.mux.LocalAddr() }

// RemoteAddr returns the address of the guest if the header tells it,
// otherwise that of the tunnel's other side.
func (s *Stream) RemoteAddr() net.Addr {
	if s.remote != nil {
		return s.remote
	}
	return s.mux.RemoteAddr()
}

// guestAddr returns the address in a header as a net.Addr, nil if there is none.
func guestAddr(h StreamHeader) net.Addr {
	a, err := netip.ParseAddrPort(h.Remote)
	if err != nil {
		return nil
	}
	return net.TCPAddrFromAddrPort(a)
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of reads, those under way included.
func (s *Stream) SetReadDeadline(t time.Time) error {
	return s.setDeadline(&s.readDeadline, t, s.mux.SetReadDeadline)
}

// SetWriteDeadline sets the deadline of writes; see [Stream].
func (s *Stream) SetWriteDeadline(t time.Time) error {
	return s.setDeadline(&s.writeDeadline, t, s.mux.SetWriteDeadline)
}

func (s *Stream) setDeadline(own *atomic.Int64, t time.Time, set func(time.Time) error) error {
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	own.Store(0)
	if !t.IsZero() {
		own.Store(t.UnixNano())
	}
	return set(t)
}

// shrink frees the receive buffer, which has room for as much as ever waited
// in it, of a stream on which nothing happens.
func (s *Stream) shrink() {
	if !s.active.Swap(false) {
		s.mux.Shrink()
	}
}
