package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// usage prints how a command is called. It is cobra's own without templates,
// which would keep the linker from leaving out what is not called, and without
// the =true|false of switches.
func usage(cmd *cobra.Command) error {
	var b strings.Builder
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "Usage:\n  %s COMMAND\n\nCommands:\n", cmd.CommandPath())
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-10s %s\n", c.Name(), c.Short)
			}
		}
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more.\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
		const noise = "[=true|false]"
		flags := strings.ReplaceAll(cmd.LocalFlags().FlagUsages(), noise, strings.Repeat(" ", len(noise)))
		fmt.Fprintf(&b, "\nFlags:\n%s", flags)
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}
