package gateway

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway/audit"
	"github.com/stagedoor/stagedoor/gateway/splice"
)

// activity is what one guest does, for the audit stream and for whoever asks the
// gateway who is in.
type activity struct {
	audit *audit.Stream
	who   audit.Who
	since time.Time

	fromGuest, fromHost atomic.Int64 // bytes, jumps left out
	denials             atomic.Int64

	mu        sync.Mutex // guards what follows
	endedBy   ender
	reason    string // of the end
	open      map[*doing]struct{}
	listening map[listener]time.Time // since when
}

// An ender is who or what ended a guest's connection.
type ender string

const (
	endedByGuest       ender = "guest"
	endedByHost        ender = "host"
	endedByKick        ender = "kicked"
	endedByBlock       ender = "blocked"
	endedByRevocation  ender = "revoked"
	endedByLimit       ender = "limit"
	endedBySessionTime ender = "session_time"
	endedByDeadline    ender = "deadline"
	endedByKeepalive   ender = "keepalive"
	endedByDrain       ender = "drain"
)

// newActivity begins with a guest that has signed in.
func (s *Server) newActivity(g *guest) *activity {
	a := &activity{audit: s.audit, since: time.Now(), open: make(map[*doing]struct{}), listening: make(map[listener]time.Time)}
	a.who = audit.Who{Identity: clip(g.identity.Name), Remote: g.raw.remote.String(), Conn: g.id}
	if g.present {
		a.who.Task = string(g.task)
	}
	if g.identity.Key != nil {
		a.who.Key = ssh.FingerprintSHA256(plainKey(g.identity.Key))
	}
	a.audit.Record(audit.GuestSignedIn{Who: a.who, User: clip(g.user), Method: g.identity.Method, Client: clip(string(g.conn.ClientVersion()))})
	return a
}

// clip bounds what strangers can make of an event.
func clip(s string) string { return fmt.Sprintf("%.300s", s) }

// ends notes why the guest's connection ends. The first reason counts.
func (a *activity) ends(by ender, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endedBy == "" {
		a.endedBy, a.reason = by, why
	}
}

// left records the end of the connection, when everything in it has ended.
func (a *activity) left() {
	a.ends(endedByGuest, "the guest ended the connection")
	a.mu.Lock()
	defer a.mu.Unlock()
	for l := range a.listening {
		a.unlisten(l)
	}
	a.audit.Record(audit.GuestLeft{Who: a.who, By: string(a.endedBy), Reason: a.reason,
		Ended: ended(a.since, a.fromGuest.Load(), a.fromHost.Load())})
}

func ended(since time.Time, fromGuest, fromHost int64) audit.Ended {
	return audit.Ended{Seconds: seconds(since), FromGuest: fromGuest, FromHost: fromHost}
}

// seconds is the time since then, in milliseconds' precision.
func seconds(since time.Time) float64 {
	return float64(time.Since(since).Milliseconds()) / 1000
}

// denied records what a connection may not have, as often as the log does.
func (a *activity) denied(what, typ string, from splice.Side, err error) {
	if a.denials.Add(1) <= maxRefusalsLogged {
		a.audit.Record(audit.GuestDenied{Who: a.who, What: what, Type: clip(typ), From: from.String(), Reason: clip(err.Error())})
	}
}

// A doing is one thing that a guest does: a session, a forwarded connection or a
// jump.
type doing struct {
	a        *activity
	typ      string // of the channel
	from     splice.Side
	target   string
	identity string // of a jump: as who
	since    time.Time

	say atomic.Pointer[sayFunc] // nil: the channel is not open, or none of ours

	fromGuest, fromHost atomic.Int64

	mu         sync.Mutex // guards what follows
	kind       string     // of a session, once it has a program
	subsystem  string
	pty        bool
	exitStatus *uint32
	exitSignal string
}

// sayFunc shows words to a guest, see [splice.ChannelHooks.Opened].
type sayFunc = func(words string) (said <-chan struct{})

func (a *activity) begin(d *doing) *doing {
	d.a, d.since = a, time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[d] = struct{}{}
	return d
}

func (a *activity) end(d *doing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, d)
}

const (
	session  = "session"
	jumpKind = "jump"
)

// channel notes a channel that is about to be opened. It is one that is forwarded
// unless it is a session, which is recorded when it is known what runs in it.
func (a *activity) channel(typ string, from splice.Side, extra []byte) *doing {
	d := a.begin(&doing{typ: typ, from: from, target: clip(forwardTarget(typ, extra))})
	if typ != session {
		a.audit.Record(audit.ForwardOpened{Who: a.who, Type: clip(typ), From: from.String(), Target: d.target})
	}
	return d
}

// forwardTarget is what a channel that is forwarded leads to, "" if it is not
// known here (RFC 4254 section 7.2; OpenSSH's PROTOCOL section 2.4).
func forwardTarget(typ string, extra []byte) string {
	switch typ {
	case "direct-tcpip", "forwarded-tcpip":
		var to directTCPIP
		if ssh.Unmarshal(extra, &to) == nil {
			return net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10))
		}
	case "direct-streamlocal@openssh.com", "forwarded-streamlocal@openssh.com":
		var to struct {
			Path string
			Rest []byte `ssh:"rest"`
		}
		if ssh.Unmarshal(extra, &to) == nil {
			return to.Path
		}
	}
	return ""
}

// request looks at a request that is passed on: those which begin and end a
// session's program.
func (d *doing) request(from splice.Side, typ string, payload []byte) {
	if d.typ != session {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case from == splice.Host:
		d.exit(typ, payload)
	case typ == "pty-req":
		d.pty = true
	case d.kind != "": // RFC 4254 section 6.5: only one of these can succeed
	case typ == "shell", typ == "exec", typ == "subsystem":
		d.kind = typ
		if typ == "subsystem" {
			d.subsystem = clip(text(payload))
		}
		d.a.audit.Record(audit.SessionStarted{Who: d.a.who, Kind: d.kind, Subsystem: d.subsystem, PTY: d.pty})
	}
}

// exit notes how the program ended (RFC 4254 section 6.10). d.mu is held.
func (d *doing) exit(typ string, payload []byte) {
	switch typ {
	case "exit-status":
		var m struct{ Status uint32 }
		if ssh.Unmarshal(payload, &m) == nil {
			d.exitStatus = &m.Status
		}
	case "exit-signal":
		d.exitSignal = clip(text(payload))
	}
}

// text is the string that a request begins with.
func text(payload []byte) string {
	var m struct {
		Text string
		Rest []byte `ssh:"rest"`
	}
	ssh.Unmarshal(payload, &m)
	return m.Text
}

// data counts what is passed on.
func (d *doing) data(from splice.Side, n int) {
	if from == splice.Guest {
		d.fromGuest.Add(int64(n))
		d.a.fromGuest.Add(int64(n))
	} else {
		d.fromHost.Add(int64(n))
		d.a.fromHost.Add(int64(n))
	}
}

// closed records the end of a channel. A session in which nothing ran leaves no
// trace.
func (d *doing) closed() {
	d.a.end(d)
	end := ended(d.since, d.fromGuest.Load(), d.fromHost.Load())
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.typ != session:
		d.a.audit.Record(audit.ForwardClosed{Who: d.a.who, Type: clip(d.typ), Target: d.target, Ended: end})
	case d.kind != "":
		d.a.audit.Record(audit.SessionEnded{Who: d.a.who, Kind: d.kind, Subsystem: d.subsystem,
			ExitStatus: d.exitStatus, ExitSignal: d.exitSignal, Ended: end})
	}
}

// jumped is who jumps to a task, and as whom.
func (a *activity) jumped(task, identity string) audit.Who {
	who := a.who
	who.Task = task
	if identity != "" {
		who.Identity = clip(identity)
	}
	return who
}

// jumpRefused records a jump that came to nothing.
func (a *activity) jumpRefused(task string, err error) {
	if a.denials.Add(1) <= maxRefusalsLogged {
		a.audit.Record(audit.JumpRefused{Who: a.jumped(task, ""), Reason: clip(err.Error())})
	}
}

// jump records the beginning of a jump. The returned function records its end.
func (a *activity) jump(task, identity string) (closed func(fromGuest, fromHost int64)) {
	d := a.begin(&doing{typ: jumpKind, from: splice.Guest, target: task, identity: identity})
	who := a.jumped(task, identity)
	a.audit.Record(audit.JumpOpened{Who: who})
	return func(fromGuest, fromHost int64) {
		a.end(d)
		a.audit.Record(audit.JumpClosed{Who: who, Ended: ended(d.since, fromGuest, fromHost)})
	}
}
