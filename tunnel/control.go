package tunnel

import (
	"context"
	"time"
)

// Types of a [Message].
const (
	TypePing     = "ping"     // both ways; answered with a pong by the package itself
	TypePong     = "pong"     // both ways
	TypeDrain    = "drain"    // from a gateway: dial again, this tunnel gets no new streams; from an agent: open no new streams
	TypeReplaced = "replaced" // from a gateway: a newer agent serves the task; stop
	TypeState    = "state"    // both ways: State has changed
	TypeDeadline = "deadline" // from a gateway: the registration now ends at Deadline
)

// A Message travels on the control stream, both ways.
type Message struct {
	Type     string    `json:"type"`
	Reason   string    `json:"reason,omitempty"`
	State    string    `json:"state,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
}

// Control is the control stream of a tunnel.
type Control struct{}

// Send sends a message.
func (c *Control) Send(ctx context.Context, m Message) error { panic("todo") }

// Messages returns what the other side sends.
func (c *Control) Messages() <-chan Message { panic("todo") }
