package tunnel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// maxRetryAfter bounds what a gateway can ask an agent to wait.
const maxRetryAfter = 10 * time.Minute

// byeTimeout is how long a goodbye may take. A gateway that knows none closes
// nothing, so it is short.
const byeTimeout = time.Second

// A StateKind tells the States of Keep apart.
type StateKind int

// What Keep is doing.
const (
	StateDialing   StateKind = iota // about to dial
	StateConnected                  // a tunnel is up; Welcome is what the gateway answered
	StateLost                       // an attempt has failed or a tunnel was lost: Err tells why, the next attempt is in RetryIn
	StateDraining                   // the gateway goes down: dials another in RetryIn, while the old tunnel is served
	StateRefused                    // Keep ends: Err wraps a *Refusal
)

// String returns a word for a log.
func (k StateKind) String() string {
	names := [...]string{"dialing", "connected", "lost", "draining", "refused"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("state %d", int(k))
	}
	return names[k]
}

// A State is what Keep tells OnState.
type State struct {
	Kind    StateKind
	Welcome Welcome
	Err     error
	RetryIn time.Duration
}

// Keep keeps a tunnel up until ctx ends. It calls serve with the Listener of
// each, on a goroutine of its own; serve must return when Accept fails.
//
// When a tunnel or an attempt is lost it dials again, after a time that
// doubles from MinBackoff to MaxBackoff, with jitter, and starts over once a
// tunnel has lived for MaxBackoff. When the gateway drains it dials as well,
// serves the new tunnel and closes the old Listener, which goes on until its
// streams have ended; so several calls of serve may run side by side.
//
// Keep returns ctx's error when ctx ends; the *Refusal, possibly wrapped,
// when a gateway refuses for good or tells this one to stop, as a newer agent has
// replaced it or its time is over; an error at once if the Dialer lacks what it needs; and what serve
// returned, be it nil, when serve returns though neither its tunnel was lost
// nor Keep has closed its Listener. A serve that closed its Listener itself
// and returned nil or net.ErrClosed is first left the streams it has. When ctx
// ends the gateway is told that the agent does not come back. Before Keep returns, all tunnels are closed and all calls of serve have returned.
func (d *Dialer) Keep(ctx context.Context, serve func(net.Listener) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	k := &keeper{Dialer: d, serve: serve, stop: cancel}
	err := k.run(inner)
	cancel(err)
	k.wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if done, ok := errors.AsType[served](context.Cause(inner)); ok {
		return done.error
	}
	return err
}

// served is the cause of an end that serve wanted, with the error it returned or nil.
type served struct{ error }

func (served) Error() string { return "serve returned" }

// A keeper is one call of Keep.
type keeper struct {
	*Dialer
	serve    func(net.Listener) error
	stop     context.CancelCauseFunc
	wg       sync.WaitGroup // one for each tunnel
	attempts int            // since a tunnel last lived for MaxBackoff
}

// run dials tunnels one after the other until ctx ends or it must not go on.
func (k *keeper) run(ctx context.Context) error {
	var old *Listener
	for {
		l, err := k.dial(ctx)
		if err != nil {
			return err
		}
		k.wg.Go(func() { k.attend(ctx, l) })
		if old != nil {
			old.retired.Store(true)
			old.Close()
		}
		old = l
		if err := k.watch(ctx, l, time.Now()); err != nil {
			return err
		}
	}
}

// dial dials until a tunnel is up.
func (k *keeper) dial(ctx context.Context) (*Listener, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		k.tell(State{Kind: StateDialing})
		l, err := k.Dial(ctx)
		if err == nil {
			k.tell(State{Kind: StateConnected, Welcome: l.Welcome()})
			return l, nil
		}
		if err := k.failed(ctx, err); err != nil {
			return nil, err
		}
	}
}

// failed waits after a failed attempt, or returns an error if there must be no other.
func (k *keeper) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, ok := errors.AsType[configError](err); ok {
		return err
	}
	wait := k.backoff()
	if r, ok := errors.AsType[*Refusal](err); ok {
		if !r.Retry {
			k.tell(State{Kind: StateRefused, Err: err})
			return err
		}
		wait = max(wait, min(r.RetryAfter, maxRetryAfter))
	}
	k.tell(State{Kind: StateLost, Err: err, RetryIn: wait})
	return sleep(ctx, wait)
}

// attend serves one tunnel and returns when all of it has ended.
func (k *keeper) attend(ctx context.Context, l *Listener) {
	defer l.CloseNow()
	defer context.AfterFunc(ctx, l.leave)()
	err := k.serve(l)
	if err == nil || errors.Is(err, net.ErrClosed) {
		if isClosed(l.closing) {
			<-l.Done() // streams that were accepted go on
		}
		if l.retired.Load() || l.lost() {
			return
		}
	}
	k.stop(served{err})
}

// leave says goodbye, gives the gateway a moment to close the tunnel, and closes
// it. Without a goodbye the gateway would wait for the agent to come back.
func (l *Listener) leave() {
	defer l.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), byeTimeout)
	defer cancel()
	if isClosed(l.stopped) || l.retired.Load() || l.Control().Send(ctx, Message{Type: TypeBye}) != nil {
		return
	}
	select {
	case <-l.Done():
	case <-ctx.Done():
	}
}

// lost tells whether the tunnel has ended without this side wanting it.
func (l *Listener) lost() bool {
	err := l.Err()
	return err != nil && err != ErrClosed
}

// watch returns nil when it is time to dial another tunnel than l, which has
// been up since start.
func (k *keeper) watch(ctx context.Context, l *Listener, start time.Time) error {
	s := State{Kind: StateLost}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
	case <-l.drained:
		s.Kind = StateDraining
	case <-l.Done():
		<-l.Control().ended // the gateway's last words may still be there to be read
		if s.Err = l.Err(); !l.lost() {
			<-ctx.Done() // serve has closed its Listener, so attend stops everything
			return ctx.Err()
		}
	}
	if isClosed(l.stopped) {
		k.tell(State{Kind: StateRefused, Err: l.stop})
		return l.stop
	}
	if time.Since(start) >= or(k.MaxBackoff, defaultMaxBackoff) {
		k.attempts = 0
	}
	s.RetryIn = k.backoff()
	k.tell(s)
	return sleep(ctx, s.RetryIn)
}

// backoff returns how long to wait before the next attempt: half of a time
// that doubles, and a random part of the other half, so that the agents of a
// gateway that went down do not all come back at once.
func (k *keeper) backoff() time.Duration {
	lo, hi := or(k.MinBackoff, defaultMinBackoff), or(k.MaxBackoff, defaultMaxBackoff)
	d := min(lo<<min(k.attempts, 20), max(lo, hi))
	k.attempts++
	return d/2 + rand.N(d/2+1)
}

func (k *keeper) tell(s State) {
	if k.OnState != nil {
		k.OnState(s)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
