// Command stagedoor is the operator's program: it runs a gateway, mints the
// tokens by which hosts register, and carries SSH over a WebSocket for guests
// whose network lets only HTTPS out.
package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/version"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(cli.Status("stagedoor", err, os.Stderr))
}

// exitStatus ends the process with that status and no more words.
type exitStatus = cli.ExitStatus

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "stagedoor",
		Short: "A shell on a CI host with one ssh command",
		Long: "Stagedoor lets people enter a running CI task with the ssh they have.\n\n" +
			"A gateway is the public rendezvous. In each task an agent (stagedoor-agent) dials\n" +
			"out to it, and guests type: ssh TASK@GATEWAY",
	}
	root.AddCommand(
		newGatewayCommand(),
		newTokenCommand(),
		newKeygenCommand(),
		newJWKSCommand(),
		newSSHConfigCommand(),
		newLsCommand(),
		newWhoCommand(),
		newKickCommand(),
		newBlockCommand(),
		newUnblockCommand(),
		newExplainCommand(),
		cli.UntilSignal(newProxyCommand()),
		cli.UntilSignal(newTryCommand()),
		cli.VersionCommand("stagedoor", version.String()),
	)
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}
