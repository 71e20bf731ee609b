package agent

import (
	"context"
	"slices"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/tunnel"
)

// status is how the task fares now.
func (a *Agent) status() hold.Status {
	guests, now := a.server.attached(), time.Now()
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := hold.Status{Task: string(h.task), State: hold.Registered, Guests: guests, Command: h.command, Rerun: h.rerun, Outcome: h.outcome}
	if len(guests) > 0 {
		s.State = hold.Attached
	}
	if h.job != nil {
		c := *h.job.clock
		if len(guests) > 0 && !h.job.present { // they came since the last look
			c.Attach(now)
		}
		s.Held, s.Since, s.Deadline, s.Hard, s.Reason = true, c.Start(), c.End(), c.Hard(), &h.job.why
		s.State = c.State(now)
	}
	switch {
	case h.ended:
		s.State, s.Why = hold.Ended, h.why
	case !h.up && s.State == hold.Registered:
		s.State = hold.Connecting
	}
	return s
}

// deadlineNews is how often a deadline is published that moves because guests are active.
const deadlineNews = time.Minute

// news are statuses that are worth telling.
type news struct {
	last hold.Status
	at   time.Time // when last was told
}

// look tells whether a status is to be told, and, if nothing happens, when to look again.
func (n *news) look(s hold.Status) (is bool, again time.Duration) {
	again = deadlineNews
	moved := !s.Deadline.Equal(n.last.Deadline)
	if moved {
		again = deadlineNews - time.Since(n.at)
	}
	if !differs(s, n.last) && (!moved || again > 0) {
		return false, again
	}
	n.last, n.at = s, time.Now()
	return true, deadlineNews
}

// publisher tells how the task fares, whenever that changes.
type publisher struct {
	agent  *Agent
	news   news
	tunnel *tunnel.Listener // that the last was told by
}

// publish tells it until ctx ends.
func (a *Agent) publish(ctx context.Context) {
	p := &publisher{agent: a}
	for {
		wait := p.look(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.holding().changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look publishes what has changed, and returns when to look again even if nothing happens.
func (p *publisher) look(ctx context.Context) time.Duration {
	s := p.agent.status()
	is, again := p.news.look(s)
	if is && p.agent.Changed != nil {
		p.agent.Changed(s)
	}
	if l := p.agent.newestTunnel(); is || l != p.tunnel {
		p.tell(ctx, l)
	}
	return again
}

func (a *Agent) newestTunnel() *tunnel.Listener {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tunnel
}

// differs tells whether two statuses do, apart from a deadline that has moved a little.
func differs(a, b hold.Status) bool {
	return a.State != b.State || a.Task != b.Task || a.Held != b.Held || !slices.Equal(a.Guests, b.Guests) || a.Command != b.Command ||
		a.Rerun != b.Rerun || a.Outcome != b.Outcome || a.Deadline.Sub(b.Deadline).Abs() >= deadlineNews
}

// tellTimeout is how long a gateway may take to be told.
const tellTimeout = 5 * time.Second

// tell tells the gateway, which shows it to operators.
func (p *publisher) tell(ctx context.Context, l *tunnel.Listener) {
	if p.tunnel = l; l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	err := l.Control().Send(ctx, tunnel.Message{Type: tunnel.TypeState, State: string(p.news.last.State), Deadline: p.news.last.Deadline})
	if err != nil {
		p.agent.log().Debug("the gateway was not told the state", "error", err)
	}
}
