// Package splice joins two SSH connections into one.
package splice

import (
	"io"
	"log/slog"

	"golang.org/x/crypto/ssh"
)

// A Side is one of the two peers of a join.
type Side int

const (
	Guest Side = iota // the developer's SSH client
	Host              // the SSH server where the task runs
)

// String returns "guest" or "host".
func (s Side) String() string {
	if s == Host {
		return "host"
	}
	return "guest"
}

// A Conn is an established SSH connection with the two queues that came with
// it, from ssh.NewServerConn for a guest or ssh.NewClientConn for a host.
// Join owns all of it from the moment it is called.
type Conn struct {
	ssh.Conn
	Channels <-chan ssh.NewChannel
	Requests <-chan *ssh.Request

	// Closer, if not nil, is closed right before ssh.Conn is. It is for a
	// transport whose own Close could block, or that counts (see Wires).
	Closer io.Closer
}

// Hooks watch and judge what passes through a join. Each field may be nil.
// They are called from many goroutines at once. A hook that panics refuses
// what it was asked about; the stack goes to Panic.
type Hooks struct {
	// Channel is asked before a channel is opened on the other side. An error
	// refuses it: an *ssh.OpenChannelError gives reason and message, any other
	// is ssh.Prohibited with err.Error(). The ChannelHooks may be nil.
	Channel func(from Side, channelType string, extra []byte) (*ChannelHooks, error)

	// Global is asked before a global request is passed on, in the order of
	// arrival. handled means that the hook has replied (if a reply was wanted)
	// and that nothing is passed on; an error refuses the request.
	Global func(from Side, r *ssh.Request) (handled bool, err error)

	// Panic receives what was recovered from a goroutine of this join.
	// Nil: it is logged.
	Panic func(v any, stack []byte)

	// Log receives why channels and connections were cut off. Nil: discarded.
	Log *slog.Logger

	// Budget, if not nil, counts this join's stalled channels; new channels
	// are refused with ssh.ResourceShortage while it is full.
	Budget *Budget
}

// ChannelHooks watch and judge one channel. Each field may be nil.
type ChannelHooks struct {
	// Request is asked before a channel request is passed on, in the order in
	// which one side sends them. An error refuses it: the sender is told
	// failure if it asked for a reply. Both sides may be in it at once.
	Request func(from Side, requestType string, payload []byte) error

	// Data sees what is about to be written to the other side. p must be
	// neither kept nor changed. Up to four calls at once: each side's data
	// and stderr. It holds up the flow while it runs.
	Data func(from Side, stderr bool, p []byte)

	// Closed is called once: after everything else, also when the other side
	// refused the channel.
	Closed func()
}

// Join passes everything that one connection's peer starts to the other's,
// both ways: channels, channel requests, global requests, data, EOF and close.
// It returns when both connections are closed and its goroutines are done. h
// may be nil.
func Join(guest, host Conn, h *Hooks) {}
