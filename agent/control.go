package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

// ControlVariable is the environment variable that names an agent's control socket to the programs of sessions.
const ControlVariable = "STAGEDOOR_CONTROL"

// GuestVariable is the environment variable that names the guest to the programs of a session.
const GuestVariable = "STAGEDOOR_GUEST"

// A Controller is what the verbs act upon: an [Agent] in this process, or a [Control] that reaches one in another.
type Controller interface {
	// Status returns how the task fares.
	Status(ctx context.Context) (hold.Status, error)
	// Extend keeps the hold open for d from now on, if its hard end allows, and returns what came of it. The error wraps
	// ErrNotHeld while no job is held, as those of Resume and Fail do.
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

// controlRequest is what a client of the control socket sends: one line of JSON. It is answered by lines of JSON, the last of
// which has an outcome or an error where the request is a hold; to any other there is just one.
type controlRequest struct {
	Verb     string        `json:"verb"`
	By       string        `json:"by,omitempty"`
	For      time.Duration `json:"for,omitempty"`     // of extend
	Status   *int          `json:"status,omitempty"`  // of resume and reran
	Reason   *hold.Reason  `json:"reason,omitempty"`  // of hold
	Settings hold.Settings `json:"settings,omitzero"` // of hold
}

type controlAnswer struct {
	Status  hold.Status   `json:"status"`
	Outcome *hold.Outcome `json:"outcome,omitempty"`
	Error   string        `json:"error,omitempty"`
	Code    string        `json:"code,omitempty"` // of the error, where there is a Go one
}

// controlCodes are the errors that a client tells apart.
var controlCodes = map[string]error{"not-held": ErrNotHeld, "held": ErrHeld}

// err is the error that an answer carries.
func (a *controlAnswer) err() error {
	switch known := controlCodes[a.Code]; {
	case a.Error == "":
		return nil
	case known != nil:
		return &controlError{a.Error, known}
	}
	return errors.New(a.Error)
}

// controlError is an error of another process.
type controlError struct {
	text string
	is   error
}

func (e *controlError) Error() string { return e.text }
func (e *controlError) Unwrap() error { return e.is }

// Control is a [Controller] by way of the control socket of an agent on this machine. Only the user whom the agent runs as, and
// root, can use it. Its methods may be called at once; each makes a connection of its own.
type Control struct {
	// By is who acts, for guests and the log; empty: nobody in particular. DialControl sets it to the guest in whose session this
	// process runs, if that is so.
	By string

	path string
}

// DialControl returns the Control of the agent that listens on the socket at path. Nothing is dialled before a method is called.
func DialControl(path string) *Control {
	return &Control{path: path, By: os.Getenv(GuestVariable)}
}

// Status implements Controller.
func (c *Control) Status(ctx context.Context) (hold.Status, error) {
	return c.ask(ctx, controlRequest{Verb: "status"})
}

// Extend implements Controller.
func (c *Control) Extend(ctx context.Context, d time.Duration) (hold.Status, error) {
	return c.ask(ctx, controlRequest{Verb: "extend", For: d})
}

// Resume implements Controller.
func (c *Control) Resume(ctx context.Context, status *int) (hold.Status, error) {
	return c.ask(ctx, controlRequest{Verb: "resume", Status: status})
}

// Fail implements Controller.
func (c *Control) Fail(ctx context.Context) (hold.Status, error) {
	return c.ask(ctx, controlRequest{Verb: "fail"})
}

// Reran implements Controller.
func (c *Control) Reran(ctx context.Context, status int) error {
	_, err := c.ask(ctx, controlRequest{Verb: "reran", Status: &status})
	return err
}

// Hold holds the job and returns when it was released, as [Agent.Hold] does. settings go before those of the agent; grants still
// cap them. changed, unless nil, is told the status at first and whenever it has changed. When ctx ends, the hold is given up;
// when the agent goes, the outcome is hold.Lost and no error. The error wraps ErrNoAgent if none was there at first.
func (c *Control) Hold(ctx context.Context, why hold.Reason, settings hold.Settings, changed func(hold.Status)) (hold.Outcome, error) {
	nc, r, err := c.send(ctx, controlRequest{Verb: "hold", Reason: &why, Settings: settings})
	if err != nil {
		return hold.Outcome{}, err
	}
	defer nc.Close()
	for {
		a, err := readAnswer(r)
		switch {
		case ctx.Err() != nil:
			return *outcome(hold.Canceled), nil
		case err != nil:
			return *outcome(hold.Lost), nil
		case a.Error != "":
			return hold.Outcome{}, a.err()
		case a.Outcome != nil:
			return *a.Outcome, nil
		}
		if changed != nil {
			changed(a.Status)
		}
	}
}

// ask sends a request and reads its one answer.
func (c *Control) ask(ctx context.Context, ask controlRequest) (hold.Status, error) {
	nc, r, err := c.send(ctx, ask)
	if err != nil {
		return hold.Status{}, err
	}
	defer nc.Close()
	a, err := readAnswer(r)
	switch {
	case ctx.Err() != nil:
		return hold.Status{}, ctx.Err()
	case err != nil:
		return hold.Status{}, fmt.Errorf("%s: %w", ask.Verb, errors.Join(ErrNoAgent, err))
	}
	return a.Status, a.err()
}

// send dials and sends a request. The connection is closed when ctx ends.
func (c *Control) send(ctx context.Context, ask controlRequest) (net.Conn, *bufio.Reader, error) {
	ask.By = c.By
	nc, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w on %s: %w", ask.Verb, ErrNoAgent, c.path, err)
	}
	bound := &closingConn{Conn: nc, unbind: context.AfterFunc(ctx, func() { nc.Close() })}
	if err := json.NewEncoder(nc).Encode(ask); err != nil {
		bound.Close()
		return nil, nil, fmt.Errorf("%s: %w on %s: %w", ask.Verb, ErrNoAgent, c.path, err)
	}
	return bound, bufio.NewReader(nc), nil
}

// closingConn is a connection that something else may close.
type closingConn struct {
	net.Conn
	unbind func() bool
}

func (c *closingConn) Close() error {
	c.unbind()
	return c.Conn.Close()
}

// readAnswer reads one line.
func readAnswer(r *bufio.Reader) (*controlAnswer, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	a := new(controlAnswer)
	return a, json.Unmarshal(line, a)
}
