// Package cli is what the two commands have in common: how they run, how they
// fail, and with which status.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Statuses that both commands end with.
const (
	OK     = 0
	Failed = 1 // something went wrong while it ran
	Usage  = 2 // it was called wrongly and did nothing
)

// ExitStatus is an error whose story has been told already: the process ends
// with that status and prints nothing more.
type ExitStatus int

// Error makes ExitStatus an error.
func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// StatusError is an error that the process ends with a status of its own for.
type StatusError struct {
	Status int
	Err    error
}

// Error is that of Err.
func (e *StatusError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *StatusError) Unwrap() error { return e.Err }

// UsageError returns an error for a command that was called wrongly.
func UsageError(format string, args ...any) error {
	return &StatusError{Usage, fmt.Errorf(format, args...)}
}

// Run runs root with args and these streams. Mistakes in the arguments are
// errors with status Usage that name the help.
func Run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetUsageFunc(usage)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return wrong(cmd, err) })
	root.Args, root.RunE = cobra.ArbitraryArgs, runRoot
	for _, cmd := range root.Commands() {
		cmd.Args = checked(cmd.Args)
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// runRoot answers a call without a subcommand, and one with an unknown one.
func runRoot(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return wrong(cmd, fmt.Errorf("there is no command %q", args[0]))
	}
	return cmd.Help()
}

func checked(args cobra.PositionalArgs) cobra.PositionalArgs {
	if args == nil {
		args = cobra.NoArgs
	}
	return func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return wrong(cmd, argumentError(cmd, given))
		}
		return nil
	}
}

// argumentError says which argument is missing or one too many, where cobra counts
// them. They are the words in capitals of how the command is used; NAME VALUE of
// a flag is none.
func argumentError(cmd *cobra.Command, given []string) error {
	var wanted []string
	words := strings.Fields(cmd.Use)
	for i, word := range words[1:] {
		if name := strings.Trim(word, "[]."); strings.ToUpper(name) == name && name != "" && name[0] != '-' && !strings.Contains(words[i], "-") {
			wanted = append(wanted, word)
		}
	}
	if len(given) < len(wanted) && !strings.HasPrefix(wanted[len(given)], "[") {
		return fmt.Errorf("%s is missing: %s %s", wanted[len(given)], cmd.CommandPath(), strings.Join(words[1:], " "))
	}
	if len(given) == 0 {
		return fmt.Errorf("an argument is missing: %s %s", cmd.CommandPath(), strings.Join(words[1:], " "))
	}
	return fmt.Errorf("unexpected argument %q", given[min(len(wanted), len(given)-1)])
}

func wrong(cmd *cobra.Command, err error) error {
	return UsageError("%w; see %s --help", err, cmd.CommandPath())
}

// Status tells err on w, as the last words of the command name and without what
// looks like a secret, and returns the status that the process ends with.
func Status(name string, err error, w io.Writer) int {
	if err == nil {
		return OK
	}
	if status, ok := errors.AsType[ExitStatus](err); ok {
		return int(status)
	}
	fmt.Fprintf(w, "%s: %s\n", name, Hide(err.Error()))
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Status
	}
	return Failed
}

// UntilSignal makes SIGINT, SIGTERM and SIGHUP end the context that cmd runs
// with. A second one ends the process in the ordinary way.
func UntilSignal(cmd *cobra.Command) *cobra.Command {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), EndSignals()...)
		defer stop()
		context.AfterFunc(ctx, stop)
		cmd.SetContext(ctx)
		return run(cmd, args)
	}
	return cmd
}

// EndSignals are SIGTERM, SIGINT and SIGHUP, without those that this process was
// started to ignore, as nohup makes it ignore SIGHUP, and a shell without job
// control SIGINT in the background.
func EndSignals() []os.Signal {
	ends := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			ends = append(ends, s)
		}
	}
	return ends
}

// VersionCommand returns the command that prints one line of version.
func VersionCommand(name, version string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), name, version)
			return err
		},
	}
}
