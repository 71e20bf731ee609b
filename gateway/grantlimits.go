package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// places are what the limits of a task's grant are about. A guest takes one by the
// first thing that it asks of the host. A jump is a guest of its own: who signs in to
// jump and does nothing else is in no task by that.
type places struct {
	guests, sessions auth.Places
}

// placesOf returns those of a task, which last as long as it is registered.
func (s *Server) placesOf(task auth.TaskID) *places {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[string(task)]; h != nil {
		return h.places
	}
	return new(places) // it has gone meanwhile
}

// takePlace takes a guest's place in a task. The error is made for the guest.
func (s *Server) takePlace(ctx context.Context, reg registration) (give func(), err error) {
	give, ok := s.placesOf(reg.task).guests.Take(ctx, reg.grant.Limits.Guests)
	if !ok {
		return nil, &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: reg.grant.Limits.TooManyGuests(reg.task)}
	}
	return give, nil
}

// A stay is what a guest who is joined to its host has taken of the task.
type stay struct {
	mu     sync.Mutex // guards what follows
	ended  bool
	limits auth.GrantLimits
	places *places
	give   func()      // nil: it has no place
	over   *time.Timer // nil: it may stay
}

// beginStay takes the guest's place, unless it has one, and has it leave in time.
func (s *Server) beginStay(ctx context.Context, g *guest, reg registration) error {
	if g.stay.begun() {
		return nil
	}
	give, err := s.takePlace(ctx, reg)
	if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return errors.New(refusal.Message) // for a session to show
	}
	var over *time.Timer
	limits := reg.grant.Limits
	if limits.SessionTime > 0 {
		over = time.AfterFunc(limits.SessionTime-time.Since(g.activity.since), func() {
			s.track(func() { g.kick(endedBySessionTime, limits.TimeOver(g.task)) })
		})
	}
	g.stay.begin(limits, s.placesOf(g.task), give, over)
	return nil
}

func (y *stay) begun() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.give != nil
}

func (y *stay) begin(limits auth.GrantLimits, places *places, give func(), over *time.Timer) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.limits, y.places, y.give, y.over = limits, places, give, over
	if y.ended {
		y.release()
	}
}

// failed gives the place back of a guest who did not reach the host.
func (y *stay) failed() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.release()
}

// end is for when the guest has left.
func (y *stay) end() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.ended = true
	y.release()
}

// release gives back what was taken. y.mu is held.
func (y *stay) release() {
	if y.give != nil {
		y.give()
		y.give = nil
	}
	if y.over != nil {
		y.over.Stop()
	}
}

// takeSession takes the place of a session among those of the task.
func (s *Server) takeSession(g *guest) (give func(), err error) {
	g.stay.mu.Lock()
	limits, places := g.stay.limits, g.stay.places
	g.stay.mu.Unlock()
	if places == nil {
		return nil, errors.New("the host was not reached")
	}
	give, ok := places.sessions.Take(s.ctx, limits.Sessions)
	if !ok {
		return nil, &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: limits.TooManySessions(g.task)}
	}
	return give, nil
}

// aboutLimits tells how much of a task is taken.
func (e *Explanation) aboutLimits(s *Server, task auth.Task) {
	if task.Grant == nil {
		return
	}
	places, limits := s.placesOf(task.ID), task.Grant.Limits
	for _, one := range []struct {
		what         string
		taken, limit int
	}{{"guests", places.guests.Taken(), limits.Guests}, {"sessions", places.sessions.Taken(), limits.Sessions}} {
		if one.limit > 0 {
			e.say(verdictNote, "%s", fmt.Sprintf("its token allows %d %s at a time, and there are %d", one.limit, one.what, one.taken))
		}
	}
	if limits.SessionTime > 0 {
		e.say(verdictNote, "its token lets guests stay for %v at a time", limits.SessionTime)
	}
}
