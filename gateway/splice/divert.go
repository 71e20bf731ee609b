package splice

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"
)

// A ServeFunc serves a guest's channel in the host's place. It accepts or rejects
// nc, and returns when the channel has ended. ctx ends a while after the guest's
// connection has: what hangs in x/crypto then is left behind, and anything else
// must be let go of.
type ServeFunc func(ctx context.Context, nc ssh.NewChannel)

// serve has f serve the channel.
func (o *opening) serve(f ServeFunc) {
	j := o.l.j
	j.channels.add()
	defer j.channels.done()
	nc := &servedChannel{NewChannel: o.nc, from: o.l.conn.Meter, answer: sync.OnceFunc(func() { o.l.opening.remove(o.answered) })}
	defer nc.answer()
	defer j.rescue(nc.end)
	f(j.serving, nc)
}

// A servedChannel notes when it was answered.
type servedChannel struct {
	ssh.NewChannel
	from     *Meter
	answer   func()
	accepted ssh.Channel
}

// Accept accepts the channel.
func (c *servedChannel) Accept() (ssh.Channel, <-chan *ssh.Request, error) {
	defer c.answer()
	ch, reqs, err := c.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	c.accepted = measured{ch, c.from}
	return c.accepted, reqs, nil
}

// Reject refuses the channel.
func (c *servedChannel) Reject(reason ssh.RejectionReason, message string) error {
	defer c.answer()
	return c.NewChannel.Reject(reason, message)
}

// end ends the channel after a panic, at whatever point that was.
func (c *servedChannel) end() {
	if c.accepted != nil {
		c.accepted.Close()
		return
	}
	c.Reject(ssh.ConnectionFailed, "internal error")
}
