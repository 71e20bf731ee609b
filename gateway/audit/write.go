package audit

import (
	"encoding/json"
	"fmt"
	"time"
)

// write writes what is queued until the stream is closed.
func (s *Stream) write() {
	defer close(s.done)
	defer func() { s.file.Close() }()
	for {
		select {
		case e := <-s.queue:
			s.flush(e)
		case <-s.wake:
			s.refresh()
		case <-s.closing:
			for {
				select {
				case e := <-s.queue:
					s.flush(e)
				default:
					return
				}
			}
		}
	}
}

// refresh opens the file again if that was asked for.
func (s *Stream) refresh() {
	if !s.stale.Swap(false) {
		return
	}
	file, err := s.open()
	if err != nil {
		s.log.Error("cannot open the audit stream again, the old file stays in use", "error", err)
		return
	}
	s.file.Close()
	s.file = file // perhaps the same one, and the last line of it still torn
}

// flush writes an event, together with some of those that wait behind it.
func (s *Stream) flush(first entry) {
	s.refresh()
	s.buf = s.buf[:0]
	if s.torn {
		s.buf = append(s.buf, '\n') // what follows can be read again
	}
	lost := s.lost.Load()
	if n := lost - s.told; n > 0 {
		s.add(entry{first.at, Lost{Events: n}})
	}
	n := uint64(1)
	s.add(first)
	for len(s.buf) < batch {
		select {
		case e := <-s.queue:
			s.add(e)
			n++
			continue
		default:
		}
		break
	}
	written, err := s.file.Write(s.buf)
	if err != nil {
		s.torn = s.torn || written > 0 && s.buf[written-1] != '\n'
		s.lose(n, err)
		s.stale.Store(true) // it may be the file: the next attempt is at a new one
		return
	}
	s.torn, s.told = false, lost
	s.written.Add(n)
	if s.losing.CompareAndSwap(true, false) {
		s.log.Warn("audit events are written again", "lost_in_all", lost)
	}
}

// add appends a line to what is written next.
func (s *Stream) add(e entry) {
	line, err := line(e)
	if err != nil { // no event has a field that can fail
		s.lose(1, err)
		return
	}
	s.buf = append(s.buf, line...)
}

// line is an event in JSON, with its newline.
func line(e entry) ([]byte, error) {
	head, err := json.Marshal(struct {
		V     int       `json:"v"`
		Time  time.Time `json:"time"`
		Event string    `json:"event"`
	}{Version, e.at.UTC().Truncate(time.Microsecond), e.event()})
	if err != nil {
		return nil, fmt.Errorf("encode the head of an event: %w", err)
	}
	body, err := json.Marshal(e.Event)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.event(), err)
	}
	if len(body) > len("{}") {
		head[len(head)-1] = ','
		head = append(head, body[1:]...)
	}
	return append(head, '\n'), nil
}
