package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Types of a [Message]. A receiver ignores types that it does not know.
const (
	TypePing     = "ping"     // both ways, sent and answered by this package
	TypePong     = "pong"     // both ways: the answer to a ping
	TypeDrain    = "drain"    // from a gateway: dial again, this tunnel gets no new streams; from an agent: open no new streams
	TypeReplaced = "replaced" // from a gateway: a newer agent serves the task, stop; Reason says more
	TypeState    = "state"    // from an agent: how its task fares, State in one word; Deadline is when the job goes on that it holds
	TypeDeadline = "deadline" // from a gateway: the registration now ends at Deadline
	TypeOver     = "over"     // from a gateway: the task's time is over, stop; Reason says more
	TypeBye      = "bye"      // from an agent: it stops and does not come back

	TypePasswordUsed = "password-used" // from a gateway: the one-time password has let somebody in, and does so no more
)

// A Message travels on the control stream. Which fields count depends on its
// Type. Its JSON has at most 16 KiB.
type Message struct {
	Type     string    `json:"type"`
	Reason   string    `json:"reason,omitempty"` // for people
	State    string    `json:"state,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
}

// deliverable tells whether a received message is for the user of the
// package: neither a ping nor of a type that this version does not know.
func (m *Message) deliverable() bool {
	switch m.Type {
	case TypeDrain, TypeReplaced, TypeState, TypeDeadline, TypeOver, TypeBye, TypePasswordUsed:
		return true
	}
	return false
}

// Control is the control stream of a tunnel: messages both ways for as long
// as it lives. Its methods may be called at once.
type Control struct {
	session *session
	rw      io.ReadWriter
	handle  func(Message) // sees what is delivered, ahead of Messages

	out  chan outgoing
	pong chan struct{} // the other side waits for one
	in   chan Message

	ended chan struct{} // closed when nothing more will be read
}

type outgoing struct {
	message Message
	result  chan error // buffered
}

// messagesKept is how many messages wait for a reader of Messages.
const messagesKept = 16

func newControl(s *session, rw io.ReadWriter, handle func(Message)) *Control {
	return &Control{
		session: s,
		rw:      rw,
		handle:  handle,
		out:     make(chan outgoing, messagesKept),
		pong:    make(chan struct{}, 1),
		in:      make(chan Message, messagesKept),
		ended:   make(chan struct{}),
	}
}

// Send sends m and returns when it has been handed to the connection, which
// is not to say that it has arrived. When ctx ends first, m may yet be sent.
// It returns an error that wraps ErrClosed when the tunnel has ended. What
// is sent before the other side has been welcomed waits until then. Leave
// the other side a moment to react before closing the tunnel: TCP may drop
// what is under way from a side that closes.
func (c *Control) Send(ctx context.Context, m Message) error {
	o := outgoing{m, make(chan error, 1)}
	select {
	case c.out <- o:
	case <-ctx.Done():
		return fmt.Errorf("send %s on the control stream: %w", m.Type, ctx.Err())
	case <-c.session.done:
		return c.session.closedError()
	}
	select {
	case err := <-o.result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("send %s on the control stream: %w", m.Type, ctx.Err())
	case <-c.session.done:
	}
	select { // the answer to m may have been the end
	case err := <-o.result:
		return err
	default:
		return c.session.closedError()
	}
}

// Messages returns the channel of what the other side sends, without pings
// and unknown types. It is closed when the tunnel has ended. Nobody has to
// read it: each message tells a state, and when more than 16 wait the oldest
// is dropped.
func (c *Control) Messages() <-chan Message { return c.in }

// post queues m if there is room. It never blocks.
func (c *Control) post(m Message) {
	select {
	case c.out <- outgoing{m, make(chan error, 1)}:
	default:
	}
}

// write sends what is queued, and a ping at each interval, until the tunnel ends.
func (c *Control) write(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		o := outgoing{message: Message{Type: TypePing}}
		select {
		case <-c.session.done:
			return
		case o = <-c.out:
		case <-c.pong:
			o.message.Type = TypePong
		case <-tick.C:
		}
		err := writeFrame(c.rw, o.message, limitMessage)
		if o.result != nil {
			o.result <- err
		}
	}
}

// read takes what arrives until the tunnel ends or the other side breaks the
// protocol, which ends it.
func (c *Control) read() {
	defer c.finish()
	r := bufio.NewReader(c.rw)
	for {
		var m Message
		if _, err := readFrame(r, &m, limitMessage); err != nil {
			if err == io.EOF {
				err = errors.New("the other side closed it")
			}
			c.session.fail(fmt.Errorf("control stream: %w", err))
			return
		}
		switch {
		case m.Type == TypePing:
			select {
			case c.pong <- struct{}{}:
			default: // one that is already due answers this ping too
			}
		case m.deliverable():
			m.Reason, m.State = plain(m.Reason, 1024), plain(m.State, 1024)
			c.handle(m)
			c.deliver(m)
		}
	}
}

// finish tells that nothing more will be read.
func (c *Control) finish() {
	close(c.ended)
	close(c.in)
}

// deliver queues m for Messages, at the expense of the oldest.
func (c *Control) deliver(m Message) {
	for {
		select {
		case c.in <- m:
			return
		default:
		}
		select {
		case <-c.in:
		default:
		}
	}
}
