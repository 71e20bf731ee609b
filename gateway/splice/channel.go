package splice

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// A channel is open on both sides: two flows, one from each.
type channel struct {
	j       *join
	kind    string // RFC 4254 channel type
	session bool
	hooks   *ticket  // never nil
	flows   [2]*flow // by the side that they come from

	started atomic.Bool // a session whose program runs: nothing is ahead of data any more
	killed  atomic.Bool // written under mu

	mu         sync.Mutex // guards what follows, and what flow says
	changed    *sync.Cond // something that a goroutine of the channel may wait for
	goroutines int        // the channel has ended when it is zero
	timers     []*time.Timer
}

// newChannel returns a channel whose far end was just opened. The requests of
// that end are read from here on; all else starts with accept, which must be
// called.
func newChannel(o *opening, far ssh.Channel, reqs <-chan *ssh.Request) *channel {
	c := &channel{j: o.l.j, kind: o.nc.ChannelType(), hooks: o.hooks}
	c.session = c.kind == "session"
	c.changed = sync.NewCond(&c.mu)
	if c.hooks == nil {
		c.hooks = c.j.opened(nil)
	}
	out, back := newFlow(c, o.l.side), newFlow(c, o.l.side.other())
	c.flows[out.from], c.flows[back.from] = out, back
	out.dst = far
	back.src, back.reqs = far, reqs
	c.j.channels.add()
	c.goroutines = 1 // accept
	c.run(back.receive)
	return c
}

// accept opens the near end and lets everything flow.
func (c *channel) accept(nc ssh.NewChannel) {
	defer c.leave()
	near, reqs, err := nc.Accept()
	if err != nil { // its connection is gone
		c.kill("")
		return
	}
	out, back := c.flows[Guest], c.flows[Host]
	if out.dst == nil {
		out, back = back, out
	}
	c.mu.Lock()
	out.src, out.reqs, back.dst = near, reqs, near
	killed := c.killed.Load()
	c.mu.Unlock()
	c.run(out.receive)
	if killed { // before there was a near end to be closed
		c.run(func() { near.Close() })
	}
	for _, f := range c.flows {
		f.start()
	}
	if hook := c.hooks.Opened; hook != nil {
		hook(c.say)
	}
}

// run runs f in a goroutine of the channel. The caller is one, too.
func (c *channel) run(f func()) {
	c.mu.Lock()
	c.goroutines++
	c.mu.Unlock()
	c.j.goroutines.Go(func() {
		defer c.leave()
		defer c.j.rescue(func() { c.kill("panic") })
		f()
	})
}

// leave is called at the end of each of the channel's goroutines. The last one
// ends the channel.
func (c *channel) leave() {
	c.mu.Lock()
	c.goroutines--
	last := c.goroutines == 0
	if last {
		for _, t := range c.timers {
			t.Stop()
		}
	}
	c.mu.Unlock()
	if !last {
		return
	}
	if b := c.j.hooks.Budget; b != nil {
		b.remove(c.flows[Guest])
		b.remove(c.flows[Host])
	}
	c.j.closed(c.hooks)
	c.j.channels.done()
}

// after calls f in a while, unless the channel ends before. c.mu is held.
func (c *channel) after(d time.Duration, f func()) *time.Timer {
	t := time.AfterFunc(d, f)
	c.timers = append(c.timers, t)
	return t
}

// kill closes both ends at once, whatever is still on its way. It does not
// block, and may be called by anybody at any time.
func (c *channel) kill(why string) {
	c.mu.Lock()
	if c.killed.Load() || c.goroutines == 0 {
		c.mu.Unlock()
		return
	}
	c.killed.Store(true)
	c.goroutines++ // kill itself
	c.changed.Broadcast()
	ends := []ssh.Channel{c.flows[Guest].src, c.flows[Host].src}
	c.mu.Unlock()
	defer c.leave()

	if why != "" {
		c.j.log.Warn("channel cut off", "type", c.kind, "reason", why)
	}
	for _, end := range ends {
		if end != nil {
			// In its own goroutine: it waits for a transport that is stalled.
			c.run(func() { end.Close() })
		}
	}
	for _, f := range c.flows {
		f.takeOver()
	}
}
