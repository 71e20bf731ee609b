package splice

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/crypto/ssh"
)

// A reach is the way to a host that is dialled when it is needed.
type reach struct {
	dial   func(context.Context) (Conn, error)
	ctx    context.Context // ends with the guest's connection
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows
	attempt  *attempt   // under way, or the one that succeeded
	attached bool       // the host's leg runs
	closed   bool       // the legs are being closed
	last     bool       // the guest has promised to open no more sessions
}

// An attempt is one call of dial, which all who need the host wait for.
type attempt struct {
	done chan struct{}
	err  error // read after done is closed
}

var errEnding = &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "connection is closing"}

// reachHost returns when the host's leg runs, or why it does not. After a
// failure the next caller dials again.
func (j *join) reachHost() error {
	a := j.reach.begin(j)
	select {
	case <-a.done:
		return a.err
	case <-j.ended:
		return errEnding
	}
}

// begin joins the attempt that is under way, or starts one.
func (r *reach) begin(j *join) *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt == nil {
		a := &attempt{done: make(chan struct{})}
		r.attempt = a
		j.goroutines.Go(func() { j.dialHost(a) })
	}
	return r.attempt
}

func (j *join) dialHost(a *attempt) {
	defer close(a.done)
	conn, err := j.callDial()
	r := &j.reach
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		a.err = err
		r.attempt = nil
		return
	}
	j.attach(conn)
}

// callDial calls the dial function. A panic in it is a failure.
func (j *join) callDial() (conn Conn, err error) {
	defer j.rescue(func() { err = errors.New("internal error") })
	return j.reach.dial(j.reach.ctx)
}

// attach starts the host's leg. Even when the legs are being closed, because
// what came with the connection must be read. r.mu is held, or nothing runs yet.
func (j *join) attach(conn Conn) {
	r, host := &j.reach, j.legs[Host]
	host.conn = conn
	r.attached = true
	if r.last {
		j.goroutines.Go(func() { conn.SendRequest(noMoreSessions, false, nil) })
	}
	host.listen()
	if r.closed {
		j.goroutines.Go(host.close)
	}
}

// reached reports whether the host's leg runs.
func (r *reach) reached() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attached
}

// promise notes that the guest opens no more sessions, for the host to be told
// when there is one. It returns false when there is.
func (r *reach) promise() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = !r.attached
	return r.last
}

// close reports whether there is a host's leg to be closed. One that is attached
// later closes by itself.
func (r *reach) close() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.attached
}

// Global requests that say nothing to a host which is not there yet.
const (
	keepalive      = "keepalive@openssh.com"
	noMoreSessions = "no-more-sessions@openssh.com"
)

// reachFor has the host there for a global request of the guest. It returns
// false when r was answered without one.
func (l *leg) reachFor(r *ssh.Request) bool {
	switch {
	case l.side == Host || l.j.reach.reached():
		return true
	case r.Type == keepalive:
		r.Reply(true, nil)
		return false
	}
	l.catchUp()
	if r.Type == noMoreSessions && len(l.opening.snapshot()) == 0 && l.promised(r) {
		return false
	}
	if err := l.j.reachHost(); err != nil {
		if r.Type != noMoreSessions || !l.promised(r) {
			r.Reply(false, nil)
		}
		return false
	}
	return l.asked(r) // by what is known of the host now
}

func (l *leg) promised(r *ssh.Request) bool {
	if !l.j.reach.promise() {
		return false
	}
	r.Reply(true, nil)
	return true
}
