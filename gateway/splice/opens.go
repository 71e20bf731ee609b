package splice

import (
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
	ask := make(chan struct{})
	timer := time.NewTimer(l.j.limits.order)
	defer timer.Stop()
	select {
	case l.opening.asks <- ask:
		<-ask
	case <-l.j.ended:
		return
	}
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
	c, err := o.dial()
	o.l.opening.remove(o.answered)
	if err == nil {
		c.accept(o.nc)
		return
	}
	e := refusal(err)
	o.nc.Reject(e.Reason, e.Message)
	o.l.j.closed(o.hooks)
}

// dial asks the hooks, and then the other side, for the channel.
func (o *opening) dial() (c *channel, err error) {
	j := o.l.j
	defer j.rescue(func() {
		c, err = nil, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "internal error"}
	})
	if err := o.admit(); err != nil {
		return nil, err
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

func (o *opening) admit() error {
	j := o.l.j
	if j.isEnding() {
		return &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "connection is closing"}
	}
	if o.crowded || j.hooks.Budget != nil && j.hooks.Budget.Full() {
		return &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: "gateway is out of resources, try again later"}
	}
	if j.hooks.Channel == nil {
		return nil
	}
	hooks, err := j.hooks.Channel(o.l.side, o.nc.ChannelType(), o.nc.ExtraData())
	if err == nil {
		o.hooks = j.opened(hooks)
	}
	return err
}

// connectError keeps what the other side said and hides everything else, which
// is about its connection.
func connectError(err error) error {
	if _, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return err
	}
	return &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "connection is closing"}
}

// refusal turns an error into what the channel's opener is told.
func refusal(err error) *ssh.OpenChannelError {
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return e
	}
	return &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: err.Error()}
}
