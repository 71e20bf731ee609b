package main

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/gateway"
)

func newLsCommand() *cobra.Command {
	return newAdminCommand(&cobra.Command{
		Use:   "ls [flags]",
		Short: "List the tasks that are registered",
		Long: "Ls lists the tasks that guests can enter now: where the agent is, since when it is\n" +
			"connected, how many guests' connections there are, what the agent says of the task,\n" +
			"for how long the job is held that has failed there, and when the task ends.",
		Args: cobra.NoArgs,
	}, func(a *adminCommand, _ []string) error {
		var tasks []gateway.TaskStatus
		if done, err := a.ask(gateway.AdminTasksPath, nil, &tasks); done || err != nil {
			return err
		}
		rows := [][]string{{"TASK", "AGENT", "UP", "GUESTS", "STATE", "HELD", "ENDS", "NOTE"}}
		for _, t := range tasks {
			rows = append(rows, []string{t.Task, t.Remote, age(t.Since), strconv.Itoa(t.Guests), cmp.Or(t.State, "-"), ends(t.HeldUntil), ends(t.Until), taskNote(t)})
		}
		return table(a.out, rows)
	})
}

func ends(until *time.Time) string {
	if until == nil {
		return "-"
	}
	return "in " + span(time.Until(*until))
}

func taskNote(t gateway.TaskStatus) string {
	switch {
	case !t.Connected:
		return "its agent has lost the connection"
	case t.Tunnels > 1:
		return fmt.Sprintf("%d older tunnels drain", t.Tunnels-1)
	case t.EndToEndOnly:
		return "end to end only"
	}
	return ""
}
