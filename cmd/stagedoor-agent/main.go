// Command stagedoor-agent makes the machine it runs on the host of a task: it
// dials out to a gateway, and guests enter with ssh.
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
	os.Exit(cli.Status("stagedoor-agent", err, os.Stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "stagedoor-agent",
		Short: "Make this machine reachable with ssh, through a Stagedoor gateway",
	}
	root.AddCommand(
		cli.UntilSignal(newConnectCommand()),
		cli.VersionCommand("stagedoor-agent", version.String()),
	)
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}
