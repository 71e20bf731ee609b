package tunnel

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// streamWindow is how much of a stream may be under way: 256 KiB, yamux's
	// default, gives 3 MiB/s at 50 ms of round trip, 4 MiB about 40.
	streamWindow = 4 << 20

	// maxStreams bounds what MaxStreams can be set to, and what a gateway can
	// have an agent hold.
	maxStreams = 4096

	// closeTimeout is how long a closed stream is held while the other side
	// does not close it too. After that it is reset.
	closeTimeout = 5 * time.Minute

	// strangerBytes bounds what is buffered for somebody not yet welcomed.
	strangerBytes = 256 << 10

	// controlStream is the first stream, the only one that an agent opens.
	controlStream = 1
)

// ErrDead is why a tunnel has ended when nothing was read from the other
// side for DeadAfter, or when it took nothing of what was sent for as long.
var ErrDead = errors.New("tunnel: no sign of life from the other side")

// A session is what the two sides of a tunnel have in common: the
// connection, its life and death, and its streams.
type session struct {
	link      *link
	mux       *yamux.Session
	control   *Control
	agent     bool
	limit     int // of streams
	deadAfter time.Duration
	done      chan struct{}
	wg        sync.WaitGroup // everything that runs for the tunnel

	// mu guards what follows, and mux and control while they are being set.
	// It is taken on the goroutine that reads the connection, which holds
	// locks of yamux's then: under mu call nothing of yamux's that waits.
	mu        sync.Mutex
	err       error // why the tunnel has ended
	welcomed  bool
	stranger  int64 // bytes of data from the other side while not welcomed
	opened    bool  // gateway: the agent has opened the control stream
	refused   bool  // gateway: the agent takes no more streams
	closing   bool  // no new streams; the tunnel ends with the last one
	slots     int   // streams that are open or being opened
	streams   map[uint32]*Stream
	early     map[uint32]bool // closed by the other side before it was registered here
	closers   []*Stream       // wait for closeStreams
	watchdog  *time.Timer
	shrinking bool // shrinkIdle runs
}

// newSession starts a session on c, which it owns from now on.
func newSession(c net.Conn, agent bool, limit int, deadAfter time.Duration, log *slog.Logger) *session {
	s := &session{
		agent:     agent,
		limit:     limit,
		deadAfter: deadAfter,
		done:      make(chan struct{}),
		streams:   make(map[uint32]*Stream),
		early:     make(map[uint32]bool),
	}
	s.link = newLink(c, s.frame, s.fail)
	start := yamux.Server
	if agent {
		start = yamux.Client
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mux, err := start(s.link, muxConfig(limit, log))
	if err != nil {
		panic("tunnel: yamux refuses its configuration: " + err.Error())
	}
	s.mux = mux
	s.watchdog = time.AfterFunc(deadAfter, s.watch)
	return s
}

// muxConfig makes yamux leave life and death to us. A write that times out
// inside yamux is lost without the stream being told, and a stream that is
// not accepted in time takes the whole session with it; so neither happens.
func muxConfig(limit int, log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false // its pings queue behind bulk data
	c.ConnectionWriteTimeout = 24 * time.Hour
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = closeTimeout
	c.MaxStreamWindowSize = streamWindow
	c.AcceptBacklog = limit + 16 // more than can be open, so that opening never waits for a place
	c.LogOutput = nil
	c.Logger = muxLogger{log}
	return c
}

// frame judges each frame's header as it arrives. It runs on the goroutine
// that reads the connection and must not block.
func (s *session) frame(h frameHeader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.kind == kindPing {
		return fmt.Errorf("%w: a yamux ping", errProtocol)
	}
	if !s.welcomed && h.kind == kindData {
		if s.stranger += int64(h.length); s.stranger > strangerBytes {
			return fmt.Errorf("%w: too much data before the welcome", errProtocol)
		}
	}
	if h.flags&flagSYN != 0 && !s.mayOpen(h.stream) {
		return fmt.Errorf("%w: it opened a stream that it may not open", errProtocol)
	}
	if h.flags&(flagFIN|flagRST) != 0 {
		s.peerClosed(h.stream)
	}
	return nil
}

// mayOpen tells whether the other side may open the stream: an agent the
// control stream, once; a gateway those with even numbers. The caller holds mu.
func (s *session) mayOpen(id uint32) bool {
	if s.agent {
		return id != 0 && id%2 == 0
	}
	first := !s.opened
	s.opened = true
	return first && id == controlStream
}

// start begins the exchange of messages on the control stream once the agent
// has been welcomed. If the session has ended by then, it reads what the
// other side said last.
func (s *session) start(pingInterval time.Duration) {
	if s.control != nil && !s.converse(pingInterval) {
		s.control.read()
	}
}

func (s *session) converse(pingInterval time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.welcomed = true
	s.wg.Go(func() { s.control.write(pingInterval) })
	s.wg.Go(s.control.read)
	return true
}

// fail ends the tunnel for the given reason, if it has not ended yet. It
// does not wait.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(err)
}

// end is fail for a caller who holds mu.
func (s *session) end(err error) {
	if s.err != nil {
		return
	}
	if err == io.EOF {
		err = errors.New("the other side closed the connection")
	}
	s.err = err
	s.watchdog.Stop()
	for _, st := range s.streams {
		if st.linger != nil {
			st.linger.Stop()
		}
	}
	close(s.done)
	s.wg.Go(func() { s.mux.Close() })
}

// close ends the tunnel and returns when all that ran for it has.
func (s *session) close() {
	s.fail(ErrClosed)
	s.wg.Wait()
}

// cause returns why the tunnel has ended, nil while it lives.
func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// closedError returns an error for a caller who came too late.
func (s *session) closedError() error { return tooLate(s.cause()) }

// tooLate wraps ErrClosed and tells the cause, but does not wrap that: an
// accept loop would take some of what ends a connection, such as ECONNABORTED,
// for something that passes.
func tooLate(cause error) error {
	if cause == nil || cause == ErrClosed {
		return ErrClosed
	}
	return fmt.Errorf("%w: %v", ErrClosed, cause)
}

// watch ends the tunnel when the other side is dead, and otherwise comes
// back no later than it could be found so.
func (s *session) watch() {
	quiet := max(s.link.silence(), s.link.stuck())
	if quiet >= s.deadAfter {
		s.link.abrupt.Store(true)
		s.fail(ErrDead)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if !s.shrinking {
		s.shrinking = true
		s.wg.Go(s.shrinkIdle)
	}
	s.watchdog.Reset(min(s.deadAfter-quiet, s.deadAfter/4))
}

// shrinkIdle frees the receive buffers of streams on which nothing happens.
// yamux holds a stream's lock while a frame's body is arriving, and may call
// frame amid that; so this must neither hold mu nor keep the watchdog.
func (s *session) shrinkIdle() {
	s.mu.Lock()
	streams := slices.Collect(maps.Values(s.streams))
	s.mu.Unlock()
	for _, st := range streams {
		st.shrink()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shrinking = false
}

// drain refuses new streams. The tunnel ends when the last stream has.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.err != nil {
		return
	}
	s.closing = true
	if s.slots == 0 {
		s.end(ErrClosed)
	} else if s.agent {
		s.control.post(Message{Type: TypeDrain})
	}
}

// refuseStreams notes that the other side takes no new streams.
func (s *session) refuseStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = true
}

// reserve takes a slot for a stream.
func (s *session) reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return tooLate(s.err)
	case s.closing:
		return ErrClosed
	case s.refused:
		return fmt.Errorf("%w: the agent takes no more streams", ErrClosed)
	case s.slots >= s.limit:
		return ErrTooManyStreams
	}
	s.slots++
	return nil
}

// release gives a slot back. The caller holds mu.
func (s *session) release() {
	s.slots--
	if s.closing && s.slots == 0 {
		s.end(ErrClosed)
	}
}

// count returns the number of slots taken.
func (s *session) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0
	}
	return s.slots
}

// muxLogger passes on what yamux logs, all of it about the other side's
// behaviour, at the level for debugging.
type muxLogger struct{ log *slog.Logger }

func (l muxLogger) Print(v ...any)   { l.log.Debug("yamux", "message", lazy{v: v}) }
func (l muxLogger) Println(v ...any) { l.log.Debug("yamux", "message", lazy{v: v}) }
func (l muxLogger) Printf(format string, v ...any) {
	l.log.Debug("yamux", "message", lazy{format, v})
}

// lazy is formatted only if it is logged: a peer can cause many of these.
type lazy struct {
	format string
	v      []any
}

func (l lazy) LogValue() slog.Value {
	if l.format == "" {
		return slog.StringValue(fmt.Sprint(l.v...))
	}
	return slog.StringValue(fmt.Sprintf(l.format, l.v...))
}
