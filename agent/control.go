package agent

import (
	"context"
	"errors"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

// ControlVariable is the environment variable that names an agent's control socket to the programs of sessions.
const ControlVariable = "STAGEDOOR_CONTROL"

// A Controller is what the verbs act upon: an [Agent] in this process, or a [Control] that reaches one in another.
type Controller interface {
	// Status returns how the task fares.
	Status(ctx context.Context) (hold.Status, error)
	// Extend keeps the hold open for d from now on, if its hard end allows, and returns what came of it.
	Extend(ctx context.Context, d time.Duration) (hold.Status, error)
	// Resume lets a held job go on. status, unless nil, is what the job is to end with.
	Resume(ctx context.Context, status *int) (hold.Status, error)
	// Fail ends a held job as failed.
	Fail(ctx context.Context) (hold.Status, error)
	// Reran notes how a rerun of the job's command has ended.
	Reran(ctx context.Context, status int) error
}

// ErrNotHeld is wrapped by what Extend, Resume and Fail return while no job is held.
var ErrNotHeld = errors.New("the job is not held")

// ErrHeld is wrapped by what Hold returns when the job is held already.
var ErrHeld = errors.New("the job is held already")

// ErrNoAgent is wrapped by what a Control returns when no agent answers on its socket.
var ErrNoAgent = errors.New("no agent answers")

// Control is a [Controller] by way of the control socket of an agent on this machine. Only the user whom the agent runs as, and
// root, can use it. Its methods may be called at once; each makes a connection of its own.
type Control struct {
	// By is who acts, for guests and the log; empty: nobody in particular.
	By string

	path string
}

// DialControl returns the Control of the agent that listens on the socket at path. Nothing is dialled before a method is called.
func DialControl(path string) *Control { return &Control{path: path} }

// Status implements Controller.
func (c *Control) Status(ctx context.Context) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Extend implements Controller.
func (c *Control) Extend(ctx context.Context, d time.Duration) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Resume implements Controller.
func (c *Control) Resume(ctx context.Context, status *int) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Fail implements Controller.
func (c *Control) Fail(ctx context.Context) (hold.Status, error) {
	return hold.Status{}, errors.ErrUnsupported
}

// Reran implements Controller.
func (c *Control) Reran(ctx context.Context, status int) error { return errors.ErrUnsupported }

// Hold holds the job and returns when it was released, as [Agent.Hold] does. settings go before those of the agent; grants still
// cap them. changed, unless nil, is told the status at first and whenever it has changed. When ctx ends, the hold is given up;
// when the agent goes, the outcome is hold.Lost and no error. The error wraps ErrNoAgent if none was there at first.
func (c *Control) Hold(ctx context.Context, why hold.Reason, settings hold.Settings, changed func(hold.Status)) (hold.Outcome, error) {
	return hold.Outcome{}, errors.ErrUnsupported
}
