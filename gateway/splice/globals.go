package splice

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// globals are the global requests of one leg's peer that were not passed on.
type globals struct {
	mu       sync.Mutex // guards all below
	changed  *sync.Cond
	queue    requests
	ended    bool
	inflight chan struct{} // closed when the reply was passed back; nil: none is awaited
}

func (g *globals) init(l limits) {
	g.changed = sync.NewCond(&g.mu)
	g.queue = requests{maxCount: l.requests, maxBytes: l.bytes}
}

// receiveGlobals moves requests from x/crypto's queue to ours.
func (l *leg) receiveGlobals() {
	defer l.end()
	defer l.globals.finish()
	full := false
	for {
		select {
		case r, ok := <-l.conn.Requests:
			if !ok {
				return
			}
			if !full && !l.globals.push(r) {
				full = true // and read on until the connection is closed
				l.cut("too many global requests without an answer")
			}
		case <-l.j.abandoned:
			return
		}
	}
}

func (g *globals) push(r *ssh.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.changed.Signal()
	return g.queue.push(r)
}

func (g *globals) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.changed.Signal()
}

// next waits for a request. It returns nil when there will be none.
func (g *globals) next() *ssh.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.queue.empty() {
		if g.ended {
			return nil
		}
		g.changed.Wait()
	}
	return g.queue.pop()
}

// passGlobals passes requests on one by one: RFC 4254 section 4 has replies
// come in the order of the requests, as they say nothing else of what they
// answer.
func (l *leg) passGlobals() {
	for {
		r := l.globals.next()
		if r == nil {
			return
		}
		if l.asked(r) {
			l.passGlobal(r)
		}
	}
}

// asked reports whether the hook lets r pass. If not, r was answered.
func (l *leg) asked(r *ssh.Request) bool {
	hook := l.j.hooks.Global
	if hook == nil {
		return true
	}
	handled, err := false, errors.New("panic")
	func() {
		defer l.j.rescue(nil)
		handled, err = hook(l.side, r)
	}()
	if err != nil && !handled {
		r.Reply(false, nil)
	}
	return err == nil && !handled
}

func (l *leg) passGlobal(r *ssh.Request) {
	if !l.reachFor(r) {
		return
	}
	l.waitSessions()
	if r.WantReply {
		defer l.globals.awaitReply()()
	}
	// The payloads of both kinds of reply matter: the port of a tcpip-forward
	// for port 0, the signatures of hostkeys-prove-00@openssh.com.
	settled := func(bool) {}
	if l.side == Guest {
		settled = l.j.asked.begin(r)
	}
	ok, payload, err := l.other().conn.SendRequest(r.Type, r.WantReply, r.Payload)
	granted := err == nil && (ok || !r.WantReply)
	settled(granted)
	if hook := l.j.hooks.Answered; hook != nil {
		func() {
			defer l.j.rescue(nil)
			hook(l.side, r, granted, payload)
		}()
	}
	r.Reply(ok && err == nil, payload)
}

// awaitReply marks that a reply is awaited until the result is called.
func (g *globals) awaitReply() func() {
	done := make(chan struct{})
	g.setInflight(done)
	return func() {
		g.setInflight(nil)
		close(done)
	}
}

func (g *globals) setInflight(c chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inflight = c
}

// waitReply returns when the reply that the peer was waiting for, if any, has
// been passed to it, or after a time in which every sane peer would have
// answered.
func (l *leg) waitReply() {
	l.globals.mu.Lock()
	inflight := l.globals.inflight
	l.globals.mu.Unlock()
	if inflight == nil {
		return
	}
	timer := time.NewTimer(l.j.limits.order)
	defer timer.Stop()
	select {
	case <-inflight:
	case <-timer.C:
	case <-l.j.ended:
	}
}
