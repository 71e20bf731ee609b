// Package audit records who came, what they did and how it ended, as one stream
// of JSON lines that is only ever added to:
//
//	{"v":1,"time":"2026-01-02T15:04:05.678Z","event":"guest.signed_in","task":"task-1234","identity":"alice",…}
//
// What is recorded are the types in events.go; docs/audit.md describes them for
// those who read the stream. There are no commands in it, no data and no secrets.
//
//	stream, err := audit.Open("/var/log/stagedoor/audit.jsonl", log)
//	…
//	stream.Record(audit.GuestLeft{…})
//	…
//	stream.Reopen() // a log rotation has moved the file away
//	stream.Close()
//
// Nobody waits for the disk: Record puts an event into a queue. When that is full
// or the file cannot be written, events are lost; they are counted, the log says
// so, and so does the stream itself, in an event of its own, once it goes on.
package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Stdout is the name of standard output where a file is asked for.
const Stdout = "-"

const (
	// queued is how many events may wait to be written. Their strings are
	// bounded, so this is a few MiB.
	queued = 8192
	// batch is how many bytes are written at a time.
	batch = 64 << 10
	// closeTime is how long Close waits for an end that does not take what is
	// written.
	closeTime = 5 * time.Second
)

// A Stream takes events. The nil Stream discards them. Its methods may be called
// at the same time.
type Stream struct {
	log  *slog.Logger
	open func() (io.WriteCloser, error)

	queue   chan entry
	wake    chan struct{} // looks at stale
	closing chan struct{}
	end     func() // closes closing
	done    chan struct{}

	stale   atomic.Bool // the file is to be opened again
	losing  atomic.Bool // the log knows already
	written atomic.Uint64
	lost    atomic.Uint64

	// What follows is the writer's.
	file io.WriteCloser
	told uint64 // of lost, those that the stream itself tells of
	torn bool   // the last line was cut short
	buf  []byte
}

// entry is an event and when it came.
type entry struct {
	at time.Time
	Event
}

// Open adds to the file of that name, or to standard output when it is Stdout.
// The file is made when it is missing, readable by its owner alone. log, which
// may be nil, hears of events that were lost.
func Open(name string, log *slog.Logger) (*Stream, error) {
	if name == Stdout {
		return newStream(func() (io.WriteCloser, error) { return keepOpen{os.Stdout}, nil }, log)
	}
	return newStream(func() (io.WriteCloser, error) { return openFile(name) }, log)
}

func openFile(name string) (io.WriteCloser, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// keepOpen is a writer that others use as well.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

func newStream(open func() (io.WriteCloser, error), log *slog.Logger) (*Stream, error) {
	file, err := open()
	if err != nil {
		return nil, fmt.Errorf("open the audit stream: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Stream{
		log: log, open: open, file: file,
		queue: make(chan entry, queued), wake: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	s.end = sync.OnceFunc(func() { close(s.closing) })
	go s.write()
	return s, nil
}

// Record adds an event to the stream. It never waits. After Close the event
// counts as lost.
func (s *Stream) Record(e Event) {
	if s == nil {
		return
	}
	select {
	case <-s.closing:
		s.lose(1, errClosed)
		return
	default:
	}
	select {
	case s.queue <- entry{time.Now(), e}:
	default:
		s.lose(1, errFull)
	}
}

var (
	errClosed = errors.New("the stream is closed")
	errFull   = errors.New("they come faster than they can be written")
)

// lose counts events that will not be written. The log hears of the first.
func (s *Stream) lose(n uint64, err error) {
	s.lost.Add(n)
	if s.losing.CompareAndSwap(false, true) {
		s.log.Error("audit events are being lost", "error", err)
	}
}

// Reopen has the file opened by its name again. It does not wait for that: events
// that are on their way may still go into the old one. When it fails, the old one
// stays in use and the log says so.
func (s *Stream) Reopen() {
	if s == nil {
		return
	}
	s.stale.Store(true)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Written returns how many events were written so far.
func (s *Stream) Written() uint64 {
	if s == nil {
		return 0
	}
	return s.written.Load()
}

// Lost returns how many events were lost so far.
func (s *Stream) Lost() uint64 {
	if s == nil {
		return 0
	}
	return s.lost.Load()
}

// Close writes what is queued and closes the file. It returns an error when some
// of it could not be written in five seconds.
func (s *Stream) Close() error {
	if s == nil {
		return nil
	}
	s.end()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-s.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("audit: %d events could not be written in %v", len(s.queue), closeTime)
	}
}
