// Package splice joins two SSH connections into one: whatever one side's peer
// starts (a channel, a channel request, a global request, an EOF) is started
// again on the other side, type and payload untouched, both ways.
//
//	guest, chans, reqs, err := ssh.NewServerConn(nc, serverConfig)
//	...
//	host, hostChans, hostReqs, err := ssh.NewClientConn(stream, "", clientConfig)
//	...
//	splice.Join(
//		splice.Conn{Conn: guest, Channels: chans, Requests: reqs},
//		splice.Conn{Conn: host, Channels: hostChans, Requests: hostReqs},
//		&splice.Hooks{Channel: mayOpen, Log: log, Budget: budget})
//
// # Why it is more than six copies
//
// x/crypto/ssh hands out one ordered stream of messages as separate queues: new
// channels, global requests and, for each channel, data, stderr and requests.
// The order between them is lost and Join restores what peers rely on:
//
//   - OpenSSH sends stdin right behind exec, without waiting for the reply, and
//     sshd drops data on a channel that has no program yet. So a session's data
//     and EOF wait until every request queued ahead of them was answered. That
//     needs no list of requests that start a program: one invented tomorrow is
//     treated the same.
//   - A program's output follows the reply to the request that started it.
//   - exit-status and exit-signal wait until all output was written. OpenSSH's
//     sshd sends the status when the child was reaped, ahead of output that is
//     still in a pipe, and a background process can hold that pipe for hours;
//     clients that end at CLOSE do not see the difference. For clients that end
//     at the exit status (paramiko's recv_exit_status) it goes out when nothing
//     was left to pass on for a second.
//   - On session channels the guest gets EOF after exit-status, exit-signal or
//     with CLOSE, never before. A multiplexing OpenSSH client (ControlMaster)
//     sends CLOSE as soon as both sides have sent EOF; x/crypto answers at once
//     and forgets the channel, and an exit status that arrives from the host a
//     moment later is lost: 2 to 5 % of sessions exited with 255. The price is
//     that a command which closes its stdout and lives on shows EOF at its exit.
//   - no-more-sessions@openssh.com follows right behind the session that OpenSSH
//     opened last, and sshd disconnects a client whose session comes after it.
//     So global requests wait for the answers to the sessions opened ahead.
//   - The reply to tcpip-forward reaches the guest before a channel from the
//     port that it opened, which the guest could not know otherwise.
//
// # A host that is not there yet
//
// JoinLater dials the host when the guest sends something that needs one, so that
// a guest who only opens channels that a hook diverts never has one. What comes
// meanwhile waits in the same queues and keeps the same order. A promise to open
// no more sessions that comes first is kept for the host, which is told before
// anything else.
//
// # What a host may open
//
// A guest asks its host for channels in the other direction: for forwarded ports,
// its agent, its screen. One that it did not ask for is refused.
//
// # What must never wait
//
// A full queue of 16 requests or channels stops x/crypto's reading loop and with
// it all channels of a connection. Each queue is read by a goroutine that does
// nothing else, from the line after the queue was obtained, into one of ours.
// Ours are bounded: a channel that has too much unanswered is closed, and for
// global requests the connection. Channels are opened concurrently, as
// OpenChannel waits for the other side's answer. Data needs no such care: its
// window bounds what x/crypto holds, 2 MiB for each direction of a channel,
// which is what a Budget counts.
//
// # How channels end
//
// When the host closes a channel, everything that it sent is delivered first,
// however long the guest takes. When the guest closes a session, its program gets
// what was already received for two seconds at most: it has to be hung up on
// although it does not read. Any other channel's input is delivered however long
// the host takes: OpenSSH closes a forwarded connection while its last megabytes
// are on their way. Meanwhile and afterwards the host's output is read and
// dropped until it, too, has closed. When a connection ends, that is a CLOSE of
// all its channels; the other connection is closed once they are done, after 3 s
// (guest gone) or 30 s (host gone) at the latest.
//
// # What x/crypto cannot give back
//
// In v0.58.0 a peer that breaks the protocol with more than 16 messages still
// behind leaves two or three goroutines in x/crypto for good, and Conn.Wait never
// returns: the reading loop is stuck on a send to mux.loop, which waits for it.
// Join never calls Wait; it sees the end of a connection by its queues. Neither
// does it wait for ever for its own calls into x/crypto. What stays is logged.
// The same version can, under a race of a few microseconds, let OpenChannel hang
// when it is called while the connection ends.
package splice

import (
	"context"
	"io"
	"log/slog"

	"golang.org/x/crypto/ssh"
)

// A Side is one of the two ends of a join.
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

func (s Side) other() Side { return 1 - s }

// A Conn is an established SSH connection with the two queues that came with
// it, from ssh.NewServerConn for a guest or ssh.NewClientConn for a host. From
// the moment that Join is called all of it is Join's. Only Conn's SendRequest
// may be called by others meanwhile (a keepalive), and Close.
type Conn struct {
	ssh.Conn
	Channels <-chan ssh.NewChannel
	Requests <-chan *ssh.Request

	// Closer, if not nil, is closed right before ssh.Conn is: for a transport
	// that ssh.Conn's own Close does not reach, or whose Close may block.
	Closer io.Closer

	// Meter, if not nil, is what ssh.Conn reads from, for a Budget to count what
	// many small packets hold.
	Meter *Meter
}

// Hooks watch and judge what passes through a join. Each field may be nil. They
// are called from many goroutines at once.
type Hooks struct {
	// Divert is asked before a guest's channel is taken to the host, and before
	// that is dialled. It may serve the channel itself, by returning how; an
	// error refuses it, as Channel's does. With neither it goes to the host.
	Divert func(channelType string, extra []byte) (ServeFunc, error)

	// Unreachable serves a guest's channel when the host could not be dialled,
	// which err tells. Nil: the channel is refused with err.
	Unreachable func(ctx context.Context, nc ssh.NewChannel, err error)

	// Channel is asked before a channel is opened on the other side. An error
	// refuses it: an *ssh.OpenChannelError gives reason and message, any other
	// is ssh.Prohibited with err.Error(). The ChannelHooks may be nil. A panic
	// refuses the channel.
	Channel func(from Side, channelType string, extra []byte) (*ChannelHooks, error)

	// Global is asked before a global request is passed on, in the order of
	// arrival, and once more when the host was dialled for it. handled means that the hook has replied (if a reply was wanted)
	// and that nothing is passed on; an error refuses the request, and so does
	// a panic.
	Global func(from Side, r *ssh.Request) (handled bool, err error)

	// Answered is called when a global request that was passed on has been answered,
	// before the answer is passed back: granted says so, and reply is what came with
	// it. One that wants no reply counts as granted.
	Answered func(from Side, r *ssh.Request, granted bool, reply []byte)

	// Panic receives what was recovered in this join, with the stack. Nil: it
	// goes to Log.
	Panic func(v any, stack []byte)

	// Log receives why channels and connections were cut off. Nil: discarded.
	Log *slog.Logger

	// Budget, if not nil, counts this join's stalled channels. While it is full
	// for their Owner new channels are refused with ssh.ResourceShortage.
	Budget *Budget

	// Owner is whose channels these are: joins of the same owner are judged
	// together by Budget.
	Owner string
}

// ChannelHooks watch and judge one channel. Each field may be nil. A panic in
// one of them closes the channel.
type ChannelHooks struct {
	// Opened is called when the channel is open on both sides. say shows text to
	// the guest of a session, on its stderr, at any later time; it does not wait.
	// said is closed when that was written, or at once where nobody would see it.
	// When the channel ends meanwhile, it may stay open.
	Opened func(say func(text string) (said <-chan struct{}))

	// Lost is called when the host's side of a session has ended without a word
	// on how its program did, as when the host's connection is lost. What it
	// returns is shown to the guest behind all output, on its stderr.
	Lost func() (text string)

	// Request is asked before a channel request is passed on, for each side in
	// the order in which it goes out: exit-status after the output. An error
	// refuses it: it is dropped and, if a reply was wanted, answered with
	// failure. Both sides' requests may be in it at once.
	Request func(from Side, requestType string, payload []byte) error

	// Data sees what is about to be written to the other side. p must be
	// neither kept nor changed. Up to four calls may run at once: data and
	// stderr of each side. The flow waits until it returns.
	Data func(from Side, stderr bool, p []byte)

	// Closed is called once, after everything else, also when the other side
	// did not open the channel. It has been called when Join returns.
	Closed func()
}

// Join joins two connections until one of them ends. It returns when both are
// closed and its goroutines are done, and says whose had ended first. h may be nil.
//
// Calls that hang in x/crypto (see the package comment) delay it by 11 s at most,
// and are left behind.
func Join(guest, host Conn, h *Hooks) (endedBy Side) {
	return joinWith(guest, host, h, defaultLimits)
}

// JoinLater is Join with a host that is dialled when the guest first sends what
// needs one: a channel that is not diverted, or a global request other than
// keepalive@openssh.com and no-more-sessions@openssh.com. The context of dial
// ends with the guest's connection, and dial must heed it. After a failure the
// next thing that needs the host has it dialled again.
func JoinLater(guest Conn, dial func(context.Context) (Conn, error), h *Hooks) (endedBy Side) {
	return joinLater(guest, dial, h, defaultLimits)
}
