package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/job"
	"github.com/stagedoor/stagedoor/agent/publish"
)

// verbs are what can be asked of the agent that serves a job.
var verbs = []struct{ use, short string }{
	{"status [--json]", "Say how the task fares"},
	{"extend [--for 30m]", "Keep a held job for longer"},
	{"resume [--status N]", "Let a held job go on"},
	{"fail", "End a held job as failed"},
}

// newVerbCommands are the verbs. What follows one is read by the agent's package,
// which reads it alike when it comes from ssh.
func newVerbCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, v := range verbs {
		commands = append(commands, &cobra.Command{
			Use: v.use, Short: v.short, Args: cobra.ArbitraryArgs, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				return runVerb(cmd.Context(), append([]string{cmd.Name()}, args...), cmd.OutOrStdout(), cmd.ErrOrStderr())
			},
		})
	}
	rerun := &cobra.Command{
		Use: "rerun", Short: "Run the job's command again", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return rerun(cmd.Context(), cmd.ErrOrStderr()) },
	}
	return append(commands, rerun)
}

// runSession is the program under the name that sessions have it on their PATH by:
// it knows the verbs alone.
func runSession(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "rerun" {
		return rerun(ctx, stderr)
	}
	return runVerb(ctx, args, stdout, stderr)
}

func runVerb(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	control, _, err := findControl()
	if err != nil {
		return err
	}
	return asStatus(agent.RunVerb(ctx, control, args, stdout, stderr))
}

// rerun runs the job's command once more where it is called, and tells the agent
// how it ended. It ends alike.
func rerun(ctx context.Context, stderr io.Writer) error {
	control, _, err := findControl()
	if err != nil {
		return err
	}
	s, err := control.Status(ctx)
	if err != nil {
		return err
	}
	if s.Command == nil || len(s.Command.Args) == 0 {
		return errors.New("this job runs no command that could be run again: that takes stagedoor-agent run")
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, job.Signals()...)
	defer signal.Stop(signals)
	fmt.Fprintf(stderr, "stagedoor: %s\n", s.Command)
	status := job.NotExecutable
	j, err := job.Start(job.Command{Args: s.Command.Args, Dir: s.Command.Dir})
	if err != nil {
		fmt.Fprintf(stderr, "stagedoor: %v\n", err)
		status = job.StartStatus(err)
	} else {
		status = waitPassingOn(j, signals)
	}
	if err := control.Reran(ctx, status); err != nil {
		fmt.Fprintf(stderr, "stagedoor: the agent was not told: %v\n", err)
	}
	if status == 0 {
		fmt.Fprintln(stderr, "stagedoor: it passed. To let the job end so, type: stagedoor resume --status 0")
	} else {
		fmt.Fprintf(stderr, "stagedoor: it failed with status %d\n", status)
	}
	return asStatus(status)
}

func waitPassingOn(j *job.Job, signals <-chan os.Signal) int {
	ended := make(chan int, 1)
	go func() { ended <- j.Wait() }()
	for {
		select {
		case s := <-signals:
			j.Signal(s)
		case status := <-ended:
			return status
		}
	}
}

// readReport reads what the agent at a place published last. Without that the
// report is empty.
func readReport(p place) (r publish.Report) {
	if data, err := os.ReadFile(p.report()); err == nil {
		json.Unmarshal(data, &r)
	}
	return r
}
