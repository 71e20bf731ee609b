package splice

import (
	"time"

	"golang.org/x/crypto/ssh"
)

// A flow is everything that one side of a channel sends to the other.
type flow struct {
	c    *channel
	from Side
	src  ssh.Channel
	dst  ssh.Channel
	reqs <-chan *ssh.Request

	data, stderr pump

	asks     chan chan struct{} // see receive
	received chan struct{}      // closed when receive has ended

	// Guarded by c.mu:

	words  []words  // to be shown; of the host's flow alone
	queue  requests // not passed on
	busy   bool     // a request is on its way there, or the reply to it on its way back
	pumps  int      // that have not passed all
	ended  bool     // src was closed by its peer
	eof    bool     // was passed on
	closed bool     // dst was closed by us

	held     []*ssh.Request // exit-status and exit-signal, until the output has gone
	released bool           // held requests need not wait for the end of output
	exited   bool           // one was passed on
	lost     bool           // the guest was told that none will come

	quietTimer *time.Timer // set with the first held request
	quietSince uint64      // chunks passed when output became quiet
	quietFor   int         // looks ago
}

// maxHeld bounds the held requests. RFC 4254 section 6.10 knows of one.
const maxHeld = 4

func newFlow(c *channel, from Side) *flow {
	return &flow{
		c: c, from: from, pumps: 2,
		queue:    requests{maxCount: c.j.limits.requests, maxBytes: c.j.limits.bytes},
		asks:     make(chan chan struct{}),
		received: make(chan struct{}),
	}
}

// start lets the flow flow. src and dst are set, and receive runs.
func (f *flow) start() {
	f.data.init(f, false, f.src, f.dst)
	f.stderr.init(f, true, f.src.Stderr(), f.dst.Stderr())
	if b := f.c.j.hooks.Budget; b != nil {
		b.add(f)
	}
	f.c.run(f.data.run)
	f.c.run(f.stderr.run)
	f.c.run(f.pass)
}

// receive moves requests from x/crypto's queue to ours. Who asks gets an answer
// when all that arrived before the question was moved.
func (f *flow) receive() {
	defer f.end()
	for {
		select {
		case r, ok := <-f.reqs:
			if !ok {
				return
			}
			f.push(r)
		case ask := <-f.asks:
			ok := f.receiveQueued()
			close(ask)
			if !ok {
				return
			}
		case <-f.c.j.abandoned:
			return
		}
	}
}

// receiveQueued moves what is in the queue now. It returns false when the queue
// was closed.
func (f *flow) receiveQueued() bool {
	for {
		select {
		case r, ok := <-f.reqs:
			if !ok {
				return false
			}
			f.push(r)
		default:
			return true
		}
	}
}

func (f *flow) push(r *ssh.Request) {
	f.c.mu.Lock()
	ok := f.c.killed.Load() || f.queue.push(r)
	f.c.changed.Broadcast()
	f.c.mu.Unlock()
	if !ok {
		f.c.kill("too many requests without an answer from the " + f.from.String())
	}
}

// end records that src was closed, which x/crypto shows by closing reqs.
func (f *flow) end() {
	close(f.received)
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.ended = true
	if f.from == Guest && f.c.session {
		// The program must learn that its guest has gone although it does not
		// read. Of any other channel CLOSE is the proper end, and data was
		// meant to arrive.
		f.c.after(f.c.j.limits.input, f.giveUp)
	}
	f.drained()
	f.c.changed.Broadcast()
}

// leavePump is called by a pump that has passed all.
func (f *flow) leavePump() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.pumps--
	f.drained()
	f.c.changed.Broadcast()
}

// drained bounds the time in which replies to a host's requests are awaited
// that cannot reach it any more: it has closed, and its output was delivered.
// c.mu is held.
func (f *flow) drained() {
	if f.from == Host && f.ended && f.pumps == 0 {
		f.c.after(f.c.j.limits.reply, f.giveUp)
	}
}

func (f *flow) giveUp() {
	f.c.mu.Lock()
	closed := f.closed
	f.c.mu.Unlock()
	if !closed {
		f.c.kill("could not be delivered in time after the " + f.from.String() + " had closed it")
	}
}

// pass passes on all but data, until dst is closed.
func (f *flow) pass() {
	for {
		step := f.next()
		if step == nil {
			return
		}
		step()
	}
}

// next waits for something to do. It returns nil when there is nothing left.
func (f *flow) next() func() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for {
		switch {
		case f.closed || f.c.killed.Load():
			return nil
		case len(f.words) > 0 && !f.eof:
			w := f.words[0]
			f.words = f.words[1:]
			return func() { f.say(w) }
		case !f.queue.empty():
			r := f.queue.pop()
			if f.holds(r) {
				continue
			}
			f.busy = true
			return func() { f.passRequest(r) }
		case len(f.held) > 0 && (f.pumps == 0 || f.released):
			r := f.held[0]
			f.held = f.held[1:]
			f.busy = true
			return func() { f.passRequest(r) }
		case f.pumps == 0 && f.ended && !f.eof && f.isLost():
			f.lost = true
			return f.sayLost
		case f.pumps == 0 && !f.eof && f.mayEOF():
			f.eof = true
			return func() { f.dst.CloseWrite() }
		case f.pumps == 0 && f.ended:
			f.closed = true
			return func() { f.dst.Close() }
		}
		f.c.changed.Wait()
	}
}

// mayEOF says whether EOF may be passed on once all data was. See the package
// comment for why a session's has to wait. c.mu is held.
func (f *flow) mayEOF() bool {
	return !f.c.session || f.from == Guest || f.exited || f.ended
}

// passRequest passes r on, and the reply back.
func (f *flow) passRequest(r *ssh.Request) {
	granted := f.grant(r)
	if granted {
		granted = f.sendRequest(r)
	}
	r.Reply(granted, nil)

	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.busy = false
	if granted && f.c.session && f.from == Guest && startsProgram(r.Type) {
		f.c.started.Store(true)
	}
	if endsProgram(r.Type) {
		f.exited = true
	}
	f.c.changed.Broadcast()
}

func (f *flow) sendRequest(r *ssh.Request) (granted bool) {
	if f.from == Guest {
		settled := f.c.j.asked.begin(r)
		defer func() { settled(granted) }()
	}
	ok, err := f.dst.SendRequest(r.Type, r.WantReply, r.Payload)
	return err == nil && (ok || !r.WantReply)
}

func (f *flow) grant(r *ssh.Request) bool {
	hook := f.c.hooks.Request
	return hook == nil || hook(f.from, r.Type, r.Payload) == nil
}
