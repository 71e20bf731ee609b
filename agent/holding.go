package agent

import (
	"context"
	"errors"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

// Hold keeps the job for its guests until somebody lets it go, its time is over, ctx ends, or Run returns: the clocks are those of
// Clocks and the grant. The outcome says which; guests are told it when the agent ends. Run must have been called, on another
// goroutine. A gateway that cannot be reached changes nothing about the clocks. The error wraps ErrHeld if the job is held
// already; there is no other.
func (a *Agent) Hold(ctx context.Context, why hold.Reason) (hold.Outcome, error) {
	return hold.Outcome{}, errors.ErrUnsupported
}

// SetCommand tells what the job runs, for guests to read and to run again. It may be called at any time.
func (a *Agent) SetCommand(c hold.Command) {}

// End tells guests in words why the agent is about to end: "the job was cancelled". It changes nothing else, and is to be called
// before the context of Run is cancelled. Without it they read how the last hold ended, or that the job has.
func (a *Agent) End(why string) {}

// Status implements Controller.
func (a *Agent) Status(context.Context) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Extend implements Controller.
func (a *Agent) Extend(_ context.Context, d time.Duration) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Resume implements Controller.
func (a *Agent) Resume(_ context.Context, status *int) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Fail implements Controller.
func (a *Agent) Fail(context.Context) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Reran implements Controller.
func (a *Agent) Reran(_ context.Context, status int) error { return errors.ErrUnsupported }

var _, _ Controller = (*Agent)(nil), (*Control)(nil)
