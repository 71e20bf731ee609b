package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/agent/job"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

const runHelp = `Run runs a command of a job as if it stood there alone: with the same input,
output and error, the same signals and the same exit status. Guests can enter
while it runs. When it fails, the job is held for them: see what went wrong in
the directory and the environment where it did, run the command again with
stagedoor rerun, then let the job end with stagedoor resume. Nobody comes: it ends
by itself, as it would have.

In CI systems with a switch for debugging (GitHub Actions, GitLab CI, Buildkite)
nothing of this happens unless the run was started with that switch, or with the
variable STAGEDOOR_DEBUG=1. A run without it dials nothing, and says which button to
press when the command fails. --when always opens every run.

A gateway that cannot be reached, a token that is refused: the command runs
anyway, and its status is that of the job.

Exit status: that of the command; 128 and the number of the signal that ended it,
127 if there is no such program, 126 if it cannot be started. A guest may let the
job end with another one: stagedoor resume --status 0.
  2  called wrongly; the command was not run`

// Values of --on.
const (
	onFailure = "failure"
	onAlways  = "always"
	onNever   = "never"
)

func newRunCommand() *cobra.Command {
	var c config
	var on string
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND...",
		Short: "Run a command, and hold the job for guests when it fails",
		Long:  runHelp,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := c.load(cmd.Flags())
			if mistake, ok := errors.AsType[*cli.StatusError](err); ok {
				return mistake
			}
			if on != onFailure && on != onAlways && on != onNever {
				return cli.UsageError("--on: there is no %q; use failure, always or never", on)
			}
			warnVariables(cmd.Flags(), cmd.ErrOrStderr())
			r := &runner{config: &c, on: on, args: args, system: ci.Detect(os.Getenv), stderr: cmd.ErrOrStderr(), noDoor: err}
			return asStatus(r.run(cmd.Context()))
		},
	}
	c.addFlags(cmd.Flags(), "warn") // the log is the command's
	cmd.Flags().StringVar(&on, "on", onFailure, "when to hold the job: failure, always or never")
	cmd.Flags().SetInterspersed(false) // flags after the command are its own
	return cmd
}

// asStatus makes the error that a process ends with a status by.
func asStatus(status int) error {
	if status == 0 {
		return nil
	}
	return cli.ExitStatus(status)
}

// runner runs the command of a job.
type runner struct {
	*config
	on     string
	args   []string
	system *ci.System
	stderr io.Writer

	noDoor  error // why none can be opened; nil: none is known yet
	guard   *job.Guard
	door    *door // nil: nobody gets access
	watch   sync.WaitGroup
	history string
}

// run returns the status that the job is to end with.
func (r *runner) run(ctx context.Context) int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, job.Signals()...)
	defer signal.Stop(signals)
	asked := r.asked(r.system, r.defaultWhen())
	env := commandEnv()
	r.startGuard()
	defer r.guard.Close()
	if asked {
		env = r.openDoor(ctx, env)
	}
	status, cancelled := r.runCommand(env, signals)
	switch {
	case r.door != nil:
		status = r.holdJob(ctx, status, cancelled, signals)
	case !asked && status != 0 && !cancelled && r.on != onNever:
		fmt.Fprintf(r.stderr, "stagedoor-agent: to get a terminal here, %s\n", howToAsk(r.system))
	}
	return status
}

// commandEnv is the environment of the command: that of this process, without
// what is for Stagedoor alone.
func commandEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(secretVariables, name)
	})
}

// defaultWhen is the CI system's switch, where it has one.
func (r *runner) defaultWhen() string {
	if r.system.Switch != "" {
		return whenDebug
	}
	return whenAlways
}

// howToAsk says which button opens a terminal.
func howToAsk(system *ci.System) string {
	if system.Switch != "" {
		return system.Switch
	}
	return "run it again with " + ci.DebugVariable + "=1"
}

// startGuard does without one where it cannot be had: a command may leave
// something behind then, if this process is killed.
func (r *runner) startGuard() {
	program, err := os.Executable()
	if err != nil {
		return
	}
	if r.guard, err = job.StartGuard(program, "guard"); err != nil {
		fmt.Fprintf(r.stderr, "stagedoor-agent: warning: %v\n", err)
	}
}

// openDoor lets guests in, if it can, and returns the environment for the command.
func (r *runner) openDoor(ctx context.Context, env []string) []string {
	r.config.env = env
	if r.noDoor != nil {
		r.warn(r.noDoor)
		return env
	}
	if r.history = r.writeHistory(); r.history != "" {
		entry := "HISTFILE=" + r.history
		r.config.env = append(env[:len(env):len(env)], entry)
		r.guard.Mark(entry) // every session has it, and nothing else
	}
	d, err := r.open(ctx, &announcer{system: r.system, log: r.stderr, now: time.Now}, privatePlace)
	if err != nil {
		r.warn(err)
		return env
	}
	r.door = d
	r.guard.Remove(filepath.Dir(d.place.base)) // which is a private place
	dir, _ := os.Getwd()
	d.host.SetCommand(hold.Command{Args: r.args, Dir: dir})
	r.watch.Go(func() { r.await(d) })
	return append(env, agent.ControlVariable+"="+d.place.socket())
}

// await says so when guests cannot enter any more, or never could.
func (r *runner) await(d *door) {
	<-d.done
	if err := d.result(); err != nil {
		r.warn(err)
	}
}

// warn tells what is no failure of the job.
func (r *runner) warn(err error) {
	if none, ok := errors.AsType[noAccess](err); ok {
		fmt.Fprintf(r.stderr, "stagedoor-agent: %s\n", string(none))
		return
	}
	fmt.Fprintf(r.stderr, "stagedoor-agent: warning: nobody can enter this job: %s\n", cli.Hide(err.Error()))
}

// writeHistory makes a shell's history with the command in it; "" if it cannot.
func (r *runner) writeHistory() string {
	f, err := os.CreateTemp("", "stagedoor-history-")
	if err != nil {
		return ""
	}
	defer f.Close()
	fmt.Fprintln(f, hold.Command{Args: r.args})
	r.guard.Remove(f.Name())
	return f.Name()
}

// runCommand runs the command. It was cancelled if a signal came that ends jobs.
func (r *runner) runCommand(env []string, signals <-chan os.Signal) (status int, cancelled bool) {
	j, err := job.Start(job.Command{Args: r.args, Env: env})
	if err != nil {
		fmt.Fprintf(r.stderr, "stagedoor-agent: %v\n", err)
		return job.StartStatus(err), false
	}
	r.guard.Watch(j)
	defer r.guard.Unwatch()
	ended := make(chan int, 1)
	go func() { ended <- j.Wait() }()
	for {
		select {
		case s := <-signals:
			cancelled = cancelled || endsJob(s)
			j.Signal(s)
		case status := <-ended:
			return status, cancelled || pendingEnd(signals)
		}
	}
}

// endsJob tells whether a CI system, or somebody at a terminal, means the job to
// end by a signal.
func endsJob(s os.Signal) bool {
	return s == os.Interrupt || s == syscall.SIGTERM || s == syscall.SIGHUP || s == syscall.SIGQUIT
}

// pendingEnd looks for such a signal that came together with the command's end:
// the kernel may have told the command first.
func pendingEnd(signals <-chan os.Signal) bool {
	for {
		select {
		case s := <-signals:
			if endsJob(s) {
				return true
			}
		default:
			return false
		}
	}
}

// holdJob holds the job, if it is to be held, and closes the door. It returns the
// status that the job is to end with.
func (r *runner) holdJob(ctx context.Context, status int, cancelled bool, signals <-chan os.Signal) int {
	why := "the job has ended"
	if cancelled {
		why = "the job was cancelled"
	}
	if !cancelled && (r.on == onAlways || r.on == onFailure && status != 0) {
		status, why = r.hold(ctx, status, signals)
	}
	r.door.close(why)
	r.watch.Wait()
	if r.history != "" {
		os.Remove(r.history)
	}
	return status
}

// hold holds the job until it is released, and returns with which status and why.
func (r *runner) hold(ctx context.Context, status int, signals <-chan os.Signal) (int, string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	released := make(chan struct{})
	defer close(released)
	go func() {
		for {
			select {
			case s := <-signals:
				if endsJob(s) {
					cancel()
				}
			case <-released:
				return
			}
		}
	}()
	if err := r.door.awaitRegistered(ctx, r.patience()); err != nil {
		if ctx.Err() != nil {
			return status, "the job was cancelled"
		}
		if !errors.Is(err, errEnded) { // that has been told
			r.warn(fmt.Errorf("%w, so that it is not held", err))
		}
		return status, "the job has ended"
	}
	outcome, err := r.door.host.Hold(ctx, hold.Reason{Command: hold.Command{Args: r.args}, Status: status})
	if err != nil {
		r.warn(err)
		return status, "the job has ended"
	}
	return finalStatus(status, outcome), outcome.Why
}

// finalStatus is what a job ends with that was held with a status.
func finalStatus(status int, o hold.Outcome) int {
	switch {
	case o.Result == hold.Resumed && o.Status != nil:
		return *o.Status
	case o.Result == hold.Failed && status == 0:
		return cli.Failed
	}
	return status
}
