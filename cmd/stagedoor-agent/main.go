// Command stagedoor-agent makes the machine it runs on the host of a task: it
// dials out to a gateway, and guests enter with ssh.
package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/agent/pid1"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/version"
)

// sessionName is what the program is called in guests' sessions.
const sessionName = "stagedoor"

func main() {
	pid1.Run()
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") == sessionName {
		err := runSession(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
		os.Exit(cli.Status(sessionName, err, os.Stderr))
	}
	err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(cli.Status("stagedoor-agent", err, os.Stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "stagedoor-agent",
		Short: "Make this machine reachable with ssh, through a Stagedoor gateway",
	}
	root.AddCommand(
		newRunCommand(),
		cli.UntilSignal(newConnectCommand(args)),
		cli.UntilSignal(newHoldCommand()),
	)
	root.AddCommand(newVerbCommands()...)
	root.AddCommand(
		newGuardCommand(),
		cli.VersionCommand("stagedoor-agent", version.String()),
	)
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}
