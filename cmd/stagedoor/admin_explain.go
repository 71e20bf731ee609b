package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/gateway"
)

const explainHelp = `Explain says who would let a key into a task, who would not and why, and what its
owner might do there. Everybody is asked who would be asked if they came: the task's
grant, accounts on forges, authorized_keys files, the webhook.

    stagedoor explain --task task-1234 --key alice.pub --from 198.51.100.7

Exit status: 0 when it would be let in now, 1 when not, or something went wrong.`

func newExplainCommand() *cobra.Command {
	var question gateway.ExplainRequest
	var key string
	cmd := newAdminCommand(&cobra.Command{
		Use:   "explain --task TASK --key KEY [--from ADDRESS] [flags]",
		Short: "Say why somebody would or would not get in",
		Long:  explainHelp,
		Args:  cobra.NoArgs,
	}, func(a *adminCommand, _ []string) error {
		if question.Task == "" || key == "" {
			return cli.UsageError("whose key, and into what? give --key and --task")
		}
		question.Key = key
		if !strings.HasPrefix(key, "SHA256:") {
			_, line, err := loadGuestKey(key)
			if err != nil {
				return cli.UsageError("--key: %w", err)
			}
			question.Key = line
		}
		var e gateway.Explanation
		json := a.json
		a.json = false // the answer is needed for the status
		if _, err := a.ask(gateway.AdminExplainPath, question, &e); err != nil {
			return err
		}
		return a.tellExplanation(&e, question.Task, json)
	})
	f := cmd.Flags()
	f.StringVar(&question.Task, "task", "", "the `task`")
	f.StringVar(&key, "key", "", "`file` with the public key, or with a certificate; or the fingerprint of a key in a grant")
	f.StringVar(&question.From, "from", "", "`address` that the guest comes from")
	return cmd
}

// tellExplanation prints it, and returns the status of the command.
func (a *adminCommand) tellExplanation(e *gateway.Explanation, task string, json bool) error {
	var err error
	if json {
		err = printJSON(a.out, e)
	} else {
		err = printExplanation(a.out, e, task)
	}
	if err == nil && !e.Admitted {
		return cli.ExitStatus(cli.Failed)
	}
	return err
}

func printExplanation(w io.Writer, e *gateway.Explanation, task string) error {
	var b strings.Builder
	for _, step := range e.Steps {
		fmt.Fprintf(&b, "%-4s  %s\n", step.Verdict, printable(step.Text))
	}
	task = printable(task)
	switch {
	case e.Admitted:
		fmt.Fprintf(&b, "\nLet into %s as %q.\n", task, e.Identity)
	case e.Identity != "":
		fmt.Fprintf(&b, "\nWould be let into %s as %q once it is connected.\n", task, e.Identity)
	default:
		fmt.Fprintf(&b, "\nNot let into %s.\n", task)
	}
	if e.Identity != "" {
		var may []string
		for _, name := range e.Permissions {
			short, _ := shortPermission(name)
			may = append(may, short)
		}
		fmt.Fprintf(&b, "May: %s\n", orDash(strings.Join(may, ", ")))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Options)) {
		fmt.Fprintf(&b, "%s %s\n", optionWords(name), printable(e.Options[name]))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// optionWords say what a critical option does.
func optionWords(name string) string {
	switch name {
	case auth.ForceCommand:
		return "Runs only:"
	case auth.SourceAddress:
		return "Only from:"
	case auth.PermitOpen:
		return "Forwards only to:"
	case auth.PermitListen:
		return "Has the host listen only on:"
	}
	return name + ":"
}
