package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/agent/job"
)

// guardGrace is how long a command whose agent was killed may take to end.
const guardGrace = 5 * time.Second

// newGuardCommand is what run starts beside itself. It is not for people.
func newGuardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard",
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			job.RunGuard(cmd.InOrStdin(), guardGrace)
			return nil
		},
	}
}
