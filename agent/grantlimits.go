package agent

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// places are what the limits of the grant are about. All guests take some; a gateway that holds to the limits has refused spliced
// ones already.
type places struct {
	guests, sessions auth.Places
}

// A stay is what a guest has taken of the task.
type stay struct {
	mu    sync.Mutex // held while a place is waited for; guards what follows
	ended bool
	give  func()      // nil: no place was taken
	over  *time.Timer // nil: the guest may stay
}

// grantLimits are those of the grant; without one there are none.
func (s *Server) grantLimits() auth.GrantLimits {
	if s.Grant == nil {
		return auth.GrantLimits{}
	}
	return s.Grant.Limits
}

// beginStay takes the place of a guest, unless it has one. Who signs in here leaves when its time is over; the gateway sees to the
// others. The error is made for the guest.
func (g *guest) beginStay() error {
	y, limits := &g.stay, g.server.grantLimits()
	y.mu.Lock()
	defer y.mu.Unlock()
	switch {
	case y.ended:
		return errors.New("the connection has ended")
	case y.give != nil:
		return nil
	}
	give, ok := g.server.places.guests.Take(g.ctx, limits.Guests)
	if !ok {
		return &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: limits.TooManyGuests(g.server.Task)}
	}
	y.give = give
	if limits.SessionTime > 0 && !g.spliced {
		y.over = time.AfterFunc(limits.SessionTime, func() {
			g.log.Info("closing a guest's connection", "reason", "its time is over", "limit", limits.SessionTime)
			g.dismiss(limits.TimeOver(g.server.Task))
		})
	}
	return nil
}

// endStay gives the place back. What the guest ran may end later.
func (g *guest) endStay() {
	g.stay.mu.Lock()
	defer g.stay.mu.Unlock()
	g.stay.ended = true
	if g.stay.give != nil {
		g.stay.give()
	}
	if g.stay.over != nil {
		g.stay.over.Stop()
	}
}

// takePlaces takes what a channel needs of the task: the place of its guest and, for a session, one more.
func (g *guest) takePlaces(channelType string) (give func(), err error) {
	if err := g.beginStay(); err != nil {
		return nil, err
	}
	if channelType != "session" {
		return func() {}, nil
	}
	limits := g.server.grantLimits()
	give, ok := g.server.places.sessions.Take(g.ctx, limits.Sessions)
	if !ok {
		return nil, &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: limits.TooManySessions(g.server.Task)}
	}
	return give, nil
}
