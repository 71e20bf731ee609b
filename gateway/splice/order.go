package splice

import "golang.org/x/crypto/ssh"

// order waits until what came ahead of the data (or EOF) in a pump's hand was
// passed on. It returns false when the channel was killed meanwhile.
func (f *flow) order() bool {
	if !f.c.session || f.c.started.Load() {
		return !f.c.killed.Load()
	}
	if f.from == Guest {
		f.ask()
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for !f.c.killed.Load() && !f.c.started.Load() && f.isBehind() {
		f.c.changed.Wait()
	}
	return !f.c.killed.Load()
}

// isBehind says whether data must wait. c.mu is held.
//
// A guest's data wait for the answers to all of its requests, as one of them may
// start the program that reads the data. A host's output waits until the reply
// to the request that is on its way, which the host has given by now or does not
// need to give before, has reached the guest.
func (f *flow) isBehind() bool {
	guest := f.c.flows[Guest]
	if f.from == Host {
		return guest.busy
	}
	return guest.busy || !guest.queue.empty()
}

// ask returns when the requests that arrived before now are in f.queue, or
// were taken from it. x/crypto has put them into reqs before it showed us what
// came behind them.
func (f *flow) ask() {
	ask := make(chan struct{})
	select {
	case f.asks <- ask:
		<-ask
	case <-f.received:
	}
}

// holds keeps an exit status back until the output that may still be on its way
// was passed on. One that wants a reply, against RFC 4254 section 6.10, takes
// its turn. c.mu is held.
func (f *flow) holds(r *ssh.Request) bool {
	if f.from != Host || !f.c.session || !endsProgram(r.Type) || r.WantReply || len(f.held) == maxHeld {
		return false
	}
	f.held = append(f.held, r)
	if len(f.held) == 1 && f.pumps > 0 {
		f.quietSince = f.chunks()
		f.quietTimer = f.c.after(f.c.j.limits.exit/quietLooks, f.checkQuiet)
	}
	return true
}

// quietLooks is how often in a row the output must have been found quiet, spread
// over limits.exit: after a freeze of the whole machine the timer may be the
// first to run, and the pump with more output the second.
const quietLooks = 4

// checkQuiet releases held requests when no output has come for a while: a
// background process may keep its end of the pipe open for hours, and sshd
// sends the exit status while it does.
func (f *flow) checkQuiet() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if len(f.held) == 0 || f.pumps == 0 || f.c.killed.Load() {
		return
	}
	n := f.chunks()
	f.quietFor++
	if n != f.quietSince || f.stalledSince() != 0 {
		f.quietSince, f.quietFor = n, 0
	}
	if f.quietFor == quietLooks {
		f.released = true
		f.c.changed.Broadcast()
		return
	}
	f.quietTimer.Reset(f.c.j.limits.exit / quietLooks)
}

func (f *flow) chunks() uint64 { return f.data.chunks.Load() + f.stderr.chunks.Load() }
