package audit

import "time"

// Version is the version of the stream, which every line begins with. It grows
// when an event or a field changes its meaning or goes; new ones may come without.
const Version = 1

// An Event is something that is recorded: one of the types in this file.
type Event interface {
	// event is its name in the stream.
	event() string
}

// Who is part of every event that is about a connection. What is not known is
// left out.
type Who struct {
	Task     string `json:"task,omitempty"`     // name; of a guest that only jumps none
	Identity string `json:"identity,omitempty"` // name of the guest: the comment of its key, its account, its key ID
	Key      string `json:"key,omitempty"`      // fingerprint of the key that signed in, SHA256:…
	Remote   string `json:"remote,omitempty"`   // address and port
	Conn     string `json:"conn,omitempty"`     // of the connection: the same in all events of it, and in the log
}

// Ended is part of every event about the end of something that had a beginning.
type Ended struct {
	Seconds   float64 `json:"seconds"`    // since it began
	FromGuest int64   `json:"from_guest"` // bytes that the guest sent
	FromHost  int64   `json:"from_host"`  // bytes that the host sent
}

// GatewayStarted is the first event of a gateway.
type GatewayStarted struct {
	Gateway string `json:"gateway"` // its name among its peers
}

// GatewayEnded is the last event of a gateway that was not killed.
type GatewayEnded struct{}

// HostRegistered says that an agent serves a task from now on.
type HostRegistered struct {
	Who
	Agent   string     `json:"agent"`           // fingerprint of the agent's own key
	HostKey string     `json:"host_key"`        // fingerprint of its SSH host key
	Renewed bool       `json:"renewed"`         // it was registered before, and comes back without a token
	Issued  time.Time  `json:"issued"`          // when the token was
	Until   *time.Time `json:"until,omitempty"` // the end of the registration
}

// HostRefused says that an agent was not registered.
type HostRefused struct {
	Who           // Task is the one that was asked for
	Result string `json:"result"` // code of the refusal, or failed
	Reason string `json:"reason"`
}

// HostEnded says that a tunnel is gone. The task may have another.
type HostEnded struct {
	Who
	Agent   string  `json:"agent"`
	Seconds float64 `json:"seconds"`
	Reason  string  `json:"reason"`
}

// GuestSignedIn says that a guest proved who it is, and was let in.
type GuestSignedIn struct {
	Who
	User   string `json:"user"`   // the user name that its ssh gave
	Method string `json:"method"` // by which SSH authentication method
	Client string `json:"client"` // SSH version string
}

// GuestRefused says that a connection did not sign in.
type GuestRefused struct {
	Who
	User    string   `json:"user,omitempty"`    // the user name tried last
	Result  string   `json:"result"`            // denied, timeout or failed
	Offered []string `json:"offered,omitempty"` // fingerprints of keys, not proved
	Reason  string   `json:"reason"`
}

// GuestDenied says that one of both sides of a guest's connection asked for
// something that the guest may not have. After the first ten of a connection no
// more are recorded.
type GuestDenied struct {
	Who
	What   string `json:"what"` // what was refused
	Type   string `json:"type"` // of the channel or request
	From   string `json:"from"` // guest or host
	Reason string `json:"reason"`
}

// GuestLeft says that a guest's connection is gone. The bytes are those of its
// sessions and forwarded connections; jumps have their own.
type GuestLeft struct {
	Who
	Ended
	By     string `json:"by"`     // who or what ended it: guest, host, kicked, blocked, revoked, limit, session_time, deadline, keepalive, drain
	Reason string `json:"reason"` // in words
}

// SessionStarted says that a guest asked for a program on the host.
type SessionStarted struct {
	Who
	Kind      string `json:"kind"`                // shell, exec or subsystem; never the command
	Subsystem string `json:"subsystem,omitempty"` // its name, as sftp
	PTY       bool   `json:"pty"`
}

// SessionEnded says that the program, or its guest, has gone.
type SessionEnded struct {
	Who
	Kind       string  `json:"kind"`
	Subsystem  string  `json:"subsystem,omitempty"`
	ExitStatus *uint32 `json:"exit_status,omitempty"` // none: killed, or the guest went first
	ExitSignal string  `json:"exit_signal,omitempty"` // as KILL
	Ended
}

// ForwardOpened says that a connection is forwarded through a guest's.
type ForwardOpened struct {
	Who
	Type   string `json:"type"`             // of the SSH channel: direct-tcpip, forwarded-tcpip, auth-agent@openssh.com, x11, …
	From   string `json:"from"`             // who opened it: guest or host
	Target string `json:"target,omitempty"` // host:port or socket that is reached; of forwarded-tcpip the one that was listened on
}

// ForwardClosed says that it has ended.
type ForwardClosed struct {
	Who
	Type   string `json:"type"`
	Target string `json:"target,omitempty"`
	Ended
}

// ListenOpened says that the host listens for a guest (ssh -R): from now on others
// can reach into the guest's network. Each connection is a ForwardOpened.
type ListenOpened struct {
	Who
	Type   string `json:"type"`   // of the SSH request: tcpip-forward or streamlocal-forward@openssh.com
	Target string `json:"target"` // host:port or socket that is listened on; the port is the one that the host chose
}

// ListenClosed says that it no longer does.
type ListenClosed struct {
	Who
	Type    string  `json:"type"`
	Target  string  `json:"target"`
	Seconds float64 `json:"seconds"` // since it began
}

// JumpOpened says that a guest went end to end to a task.
type JumpOpened struct {
	Who // Task is the one that it jumped to
}

// JumpRefused says that a guest was not taken to a task.
type JumpRefused struct {
	Who
	Reason string `json:"reason"`
}

// JumpClosed says that an end-to-end connection has ended.
type JumpClosed struct {
	Who
	Ended
}

// Selection is whom an action of the operator's is about: one of the fields is
// set.
type Selection struct {
	Task     string `json:"on_task,omitempty"`
	Conn     string `json:"on_conn,omitempty"`
	Identity string `json:"on_identity,omitempty"`
	Key      string `json:"on_key,omitempty"` // fingerprint
}

// Operator is who did something.
type Operator struct {
	By   string `json:"by,omitempty"`   // user, as the command says: under sudo the one who called it
	Peer string `json:"peer,omitempty"` // user and process at the other end of the admin socket, as the system says
}

// AdminKicked says that an operator ended connections.
type AdminKicked struct {
	Selection
	Operator
	Reason string `json:"reason,omitempty"`
	Guests int    `json:"guests"` // connections that were ended
	Hosts  int    `json:"hosts"`  // tunnels that were ended
}

// AdminBlocked says that an operator refuses someone, or a task, from now on.
// Connections that were open are ended.
type AdminBlocked struct {
	Selection
	Operator
	Reason string     `json:"reason,omitempty"`
	Until  *time.Time `json:"until,omitempty"`
	Guests int        `json:"guests"`
	Hosts  int        `json:"hosts"`
}

// AdminUnblocked says that an operator no longer does.
type AdminUnblocked struct {
	Selection
	Operator
}

// Lost says that events are missing before this line: the disk was full, or
// events came faster than they could be written.
type Lost struct {
	Events uint64 `json:"events"` // how many
}

func (GatewayStarted) event() string { return "gateway.started" }
func (GatewayEnded) event() string   { return "gateway.ended" }
func (HostRegistered) event() string { return "host.registered" }
func (HostRefused) event() string    { return "host.refused" }
func (HostEnded) event() string      { return "host.ended" }
func (GuestSignedIn) event() string  { return "guest.signed_in" }
func (GuestRefused) event() string   { return "guest.refused" }
func (GuestDenied) event() string    { return "guest.denied" }
func (GuestLeft) event() string      { return "guest.left" }
func (SessionStarted) event() string { return "session.started" }
func (SessionEnded) event() string   { return "session.ended" }
func (ForwardOpened) event() string  { return "forward.opened" }
func (ForwardClosed) event() string  { return "forward.closed" }
func (ListenOpened) event() string   { return "listen.opened" }
func (ListenClosed) event() string   { return "listen.closed" }
func (JumpOpened) event() string     { return "jump.opened" }
func (JumpRefused) event() string    { return "jump.refused" }
func (JumpClosed) event() string     { return "jump.closed" }
func (AdminKicked) event() string    { return "admin.kicked" }
func (AdminBlocked) event() string   { return "admin.blocked" }
func (AdminUnblocked) event() string { return "admin.unblocked" }
func (Lost) event() string           { return "audit.lost" }
