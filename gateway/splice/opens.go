package splice

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// openings are the channels of one leg's peer that were not answered yet.
type openings struct {
	asks chan chan struct{} // see receiveChannels

	mu       sync.Mutex // guards all below
	count    int
	sessions map[chan struct{}]struct{} // closed when the other side has answered
}

func (o *openings) init() {
	o.asks = make(chan chan struct{})
	o.sessions = make(map[chan struct{}]struct{})
}

// receiveChannels starts what the peer opens. Who asks gets an answer when all
// that arrived before the question was started: the one way to learn that the
// queue, and the hand that took from it last, are empty.
func (l *leg) receiveChannels() {
	defer l.end()
	for {
		select {
		case nc, ok := <-l.conn.Channels:
			if !ok {
				return
			}
			l.start(nc)
		case ask := <-l.opening.asks:
			ok := l.startQueued()
			close(ask)
			if !ok {
				return
			}
		case <-l.j.abandoned:
			return
		}
	}
}

// startQueued starts what is in the queue now. It returns false when the queue
// was closed.
func (l *leg) startQueued() bool {
	for {
		select {
		case nc, ok := <-l.conn.Channels:
			if !ok {
				return false
			}
			l.start(nc)
		default:
			return true
		}
	}
}

// start opens on the other side what the peer opened here, in a goroutine of
// its own: it waits for the other side's answer.
func (l *leg) start(nc ssh.NewChannel) {
	answered := make(chan struct{})
	n := l.opening.add(nc.ChannelType() == "session", answered)
	if n > 2*l.j.limits.opens {
		l.cut("too many channels that wait to be opened or refused")
	}
	l.j.goroutines.Go(func() {
		o := &opening{l: l, nc: nc, crowded: n > l.j.limits.opens, answered: answered}
		o.run()
	})
}

func (o *openings) add(session bool, answered chan struct{}) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count++
	if session {
		o.sessions[answered] = struct{}{}
	}
	return o.count
}

func (o *openings) remove(answered chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count--
	delete(o.sessions, answered)
	close(answered)
}

// waitSessions returns when the sessions that the peer opened before now were
// answered, or after a time in which every sane host would have.
func (l *leg) waitSessions() {
	timer := time.NewTimer(l.j.limits.order)
	defer timer.Stop()
	l.catchUp()
	for _, answered := range l.opening.snapshot() {
		select {
		case <-answered:
		case <-timer.C:
			return
		case <-l.j.ended:
			return
		}
	}
}

// catchUp returns when what the peer opened before now was started.
func (l *leg) catchUp() {
	ask := make(chan struct{})
	select {
	case l.opening.asks <- ask:
		<-ask
	case <-l.j.ended:
	}
}

func (o *openings) snapshot() []chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []chan struct{}
	for answered := range o.sessions {
		all = append(all, answered)
	}
	return all
}

// An opening is one channel on its way to the other side.
type opening struct {
	l        *leg // whose peer opened it
	nc       ssh.NewChannel
	crowded  bool
	answered chan struct{}

	hooks *ticket
}

// run ends with a channel that lives on by itself, or with none.
func (o *opening) run() {
	c, serve, err := o.route()
	if serve != nil {
		o.serve(serve)
		return
	}
	o.l.opening.remove(o.answered)
	if err == nil {
		c.accept(o.nc)
		return
	}
	e := refusal(err)
	o.nc.Reject(e.Reason, e.Message)
	o.l.j.closed(o.hooks)
}

// route finds where the channel leads: to the other side, to what serves it
// instead, or nowhere.
func (o *opening) route() (c *channel, serve ServeFunc, err error) {
	j := o.l.j
	defer j.rescue(func() {
		c, serve, err = nil, nil, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "internal error"}
	})
	if err := o.mayStart(); err != nil {
		return nil, nil, err
	}
	if o.l.side == Guest {
		serve, err = o.divert()
		if serve != nil || err != nil {
			return nil, serve, err
		}
	}
	c, err = o.dial()
	return c, nil, err
}

func (o *opening) mayStart() error {
	j := o.l.j
	if j.isEnding() {
		return errEnding
	}
	if o.crowded || j.hooks.Budget != nil && j.hooks.Budget.Full(j.hooks.Owner) {
		return &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: "gateway is out of resources, try again later"}
	}
	if o.l.side == Host {
		return o.wanted()
	}
	return nil
}

// divert returns what serves the guest's channel instead of the host. If there is
// none, the host has been reached.
func (o *opening) divert() (ServeFunc, error) {
	j := o.l.j
	if hook := j.hooks.Divert; hook != nil {
		serve, err := hook(o.nc.ChannelType(), o.nc.ExtraData())
		if serve != nil || err != nil {
			return serve, err
		}
	}
	err := j.reachHost()
	if hook := j.hooks.Unreachable; err != nil && err != errEnding && hook != nil {
		return func(ctx context.Context, nc ssh.NewChannel) { hook(ctx, nc, err) }, nil
	}
	return nil, err
}

// dial asks the hooks, and then the other side, for the channel.
func (o *opening) dial() (*channel, error) {
	j := o.l.j
	if hook := j.hooks.Channel; hook != nil {
		hooks, err := hook(o.l.side, o.nc.ChannelType(), o.nc.ExtraData())
		if err != nil {
			return nil, err
		}
		o.hooks = j.opened(hooks)
	}
	if o.l.side == Host {
		o.l.other().waitReply() // it may be the port that this channel comes from
	}
	dst, reqs, err := o.l.other().conn.OpenChannel(o.nc.ChannelType(), o.nc.ExtraData())
	if err != nil {
		return nil, connectError(err)
	}
	return newChannel(o, dst, reqs), nil
}

// connectError keeps what the other side said and hides everything else, which
// is about its connection.
func connectError(err error) error {
	if _, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return err
	}
	return errEnding
}

// refusal turns an error into what the channel's opener is told.
func refusal(err error) *ssh.OpenChannelError {
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return e
	}
	return &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: err.Error()}
}
