package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/gateway"
)

const kickHelp = `Kick ends connections at once: one guest's (--conn, see stagedoor who), all of a
person (--identity, --key), or a task with all who are in it (--task). Guests are told
so in their terminals, with the --reason.

Guests may come back: to keep them out, see stagedoor block. The agent of a task that
was kicked may not; another one may register with a newer token.

    stagedoor kick --conn 5f0c1d2e --reason 'please ask before you restart the build'`

func newKickCommand() *cobra.Command {
	var who whom
	cmd := newAdminCommand(&cobra.Command{
		Use:   "kick {--conn ID | --identity NAME | --key KEY | --task TASK} [--reason TEXT] [flags]",
		Short: "End connections of guests, or a task",
		Long:  kickHelp,
		Args:  cobra.NoArgs,
	}, func(a *adminCommand, _ []string) error {
		question, err := who.ask()
		if err != nil {
			return err
		}
		var result gateway.AdminResult
		if done, err := a.ask(gateway.AdminKickPath, question, &result); done || err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, "ended", ended(result))
		return err
	})
	who.flags(cmd, true)
	cmd.Flags().StringVar(&who.request.Reason, "reason", "", "`text` that guests, or the job's log, are told")
	return cmd
}

// ended says what was ended.
func ended(r gateway.AdminResult) string {
	return plural(r.Guests, "connection") + " of guests and " + plural(r.Hosts, "tunnel") + " of hosts"
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}
