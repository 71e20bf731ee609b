package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/gateway"
)

func newWhoCommand() *cobra.Command {
	return newAdminCommand(&cobra.Command{
		Use:   "who [TASK] [flags]",
		Short: "List the guests that are connected",
		Long: "Who lists the connections of guests, of one task or of all: who they are, where they\n" +
			"come from, and what they do. With --json it tells more.",
		Args: cobra.MaximumNArgs(1),
	}, func(a *adminCommand, args []string) error {
		path := gateway.AdminGuestsPath
		if len(args) > 0 {
			path += "?task=" + strings.ToLower(args[0])
		}
		var guests []gateway.GuestStatus
		if done, err := a.ask(path, nil, &guests); done || err != nil {
			return err
		}
		rows := [][]string{{"CONN", "TASK", "IDENTITY", "FROM", "FOR", "DOING", "KEY"}}
		for _, g := range guests {
			rows = append(rows, []string{g.Conn, orDash(g.Task), g.Identity, g.Remote, age(g.Since), orDash(doing(g.Doing)), g.Key})
		}
		return table(a.out, rows)
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// maxDoing is how many things a guest is said to do at a time.
const maxDoing = 4

func doing(all []gateway.DoingStatus) string {
	var words []string
	for i, d := range all {
		if i == maxDoing {
			words = append(words, "…")
			break
		}
		word := d.Kind
		if d.Target != "" {
			word += " " + d.Target
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}
