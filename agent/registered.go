package agent

import (
	"context"
	"errors"
	"time"

	"github.com/stagedoor/stagedoor/tunnel"
)

// ready notes that the token was read: it says how long a job may be held.
func (a *Agent) ready() {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.grant, h.task = a.server.Grant, a.server.Task
	close(h.ready)
}

// registeredUntil notes that the gateway has let the host in, and the name that the task has there.
func (a *Agent) registeredUntil(deadline time.Time) {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.up, h.until, h.task = true, deadline, a.server.Task
	poke(h.changed)
}

// connected notes the tunnel that the gateway is told by how the task fares.
func (a *Agent) connected(l *tunnel.Listener) {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tunnel = l
	poke(h.changed)
}

// linkLost notes that nobody can come for the time being.
func (a *Agent) linkLost() {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.up = false
	poke(h.changed)
}

// dismissAfter tells guests why the agent ends once ctx has, and only then ends inner, and with it the tunnel.
func (a *Agent) dismissAfter(ctx, inner context.Context, end context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
		a.server.closeDoor()
		a.server.dismiss(a.lastWords())
		end(ctx.Err())
	case <-inner.Done():
	}
}

// ended notes that Run returns, and tells so.
func (a *Agent) ended() {
	words := a.lastWords()
	h := a.holding()
	h.mu.Lock()
	h.ended, h.why = true, words
	h.mu.Unlock()
	close(h.done)
	if a.Changed != nil {
		a.Changed(a.status())
	}
}

// wordsOf says to guests why a gateway does not let the host in any more.
func wordsOf(err error) string {
	refusal, ok := errors.AsType[*tunnel.Refusal](err)
	switch {
	case ok && refusal.Code == tunnel.CodeReplaced:
		return "replaced by a newer agent of the task"
	case ok:
		return refusal.Message
	}
	return "the gateway does not let the host in any more"
}

// guestsChanged notes that somebody was attached, or has left.
func (a *Agent) guestsChanged() {
	h := a.holding()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.job != nil {
		poke(h.job.wake)
	}
	poke(h.changed)
}
