package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/agent/publish"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

const holdHelp = `Hold keeps a job for its guests until somebody lets it go: with stagedoor resume
or stagedoor fail, or by its time. It uses the agent that stagedoor-agent connect
--detach has started in this job. Where there is none it is one itself, with the
flags that connect has.

Exit status:
  0  resumed, the time was over, or nobody can enter
  1  a guest has failed the job
  2  called wrongly`

func newHoldCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "hold [flags]",
		Short: "Keep the job for its guests until it is released",
		Long:  holdHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd.Flags()); err != nil {
				return err
			}
			warnVariables(cmd.Flags(), cmd.ErrOrStderr())
			system := ci.Detect(os.Getenv)
			control, p, err := findControl()
			if err != nil {
				return err
			}
			stderr := cmd.ErrOrStderr()
			if answers(cmd.Context(), p.socket()) {
				return c.holdThere(cmd.Context(), control, p, system, stderr)
			}
			if !c.asked(system, whenAlways) {
				return nil
			}
			return unlessNoAccess(c.holdHere(cmd.Context(), system, stderr), stderr)
		},
	}
	c.addFlags(cmd.Flags(), "warn")
	return cmd
}

// holdThere holds the job by the agent that serves it.
func (c *config) holdThere(ctx context.Context, control *agent.Control, p place, system *ci.System, stderr io.Writer) error {
	log := publish.New(nil, &announcer{system: system, log: stderr, now: time.Now})
	defer closePublisher(log)
	settings := c.clocks
	if !system.Deadline.IsZero() {
		settings.Latest = system.Deadline.Add(-hold.Margin)
	}
	outcome, err := control.Hold(ctx, hold.Reason{}, settings, func(s hold.Status) {
		r := readReport(p)
		r.Status = s
		log.Publish(r)
	})
	if err != nil { // that is no reason to fail a job
		fmt.Fprintf(stderr, "stagedoor-agent: warning: %v\n", err)
		return nil
	}
	return asStatus(outcome.ExitStatus())
}

// holdHere holds the job by an agent in this process.
func (c *config) holdHere(ctx context.Context, system *ci.System, stderr io.Writer) error {
	d, err := c.open(ctx, &announcer{system: system, log: stderr, now: time.Now}, func() (place, error) { return claimPlace(system) })
	if err != nil {
		return err
	}
	if err := d.awaitRegistered(ctx, c.patience()); err != nil {
		closed := d.close("the job was cancelled")
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errEnded) && closed != nil {
			err = closed
		}
		if _, ok := errors.AsType[noAccess](err); ok {
			return err
		}
		fmt.Fprintf(stderr, "stagedoor-agent: warning: %s, so that the job is not held\n", cli.Hide(err.Error()))
		return nil
	}
	outcome, err := d.host.Hold(ctx, hold.Reason{})
	d.close(outcome.Why)
	if err != nil {
		return err
	}
	return asStatus(outcome.ExitStatus())
}
