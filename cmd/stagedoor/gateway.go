package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

const gatewayHelp = `Gateway is the public rendezvous: agents dial in to it over HTTPS, and guests
enter their tasks with ssh.

A domain is enough. Keys are made on the first start, in the state directory,
and the certificate is fetched by ACME from Let's Encrypt, whose terms of
service you agree to by this:

    stagedoor gateway --domain terminal.example.com

Every setting can stand in a file (--config, see config.example.yaml), in the
environment (STAGEDOOR_SSH_LISTEN for ssh.listen) and on the command line
(--ssh-listen). The command line wins over the environment, and that over the
file. --check names every mistake with its line, and starts nothing.

SIGHUP     loads the configuration, keys and certificate again; the listeners
           stay. A configuration with mistakes changes nothing.
SIGTERM    (or SIGINT) drains: the listeners close, agents dial again, open
           sessions go on until drain.deadline. A second one ends at once.

Exit status: 0 after a signal, 1 when something went wrong, 2 when called wrongly.`

func newGatewayCommand() *cobra.Command {
	s := source{File: os.Getenv("STAGEDOOR_CONFIG"), Strict: true}
	var check bool
	cmd := &cobra.Command{
		Use:   "gateway {--config FILE | --domain NAME} [flags]",
		Short: "Run a gateway",
		Long:  gatewayHelp,
		Args:  cobra.NoArgs,
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&s.File, "config", "c", s.File, "configuration `file`, in YAML (STAGEDOOR_CONFIG)")
	cmd.Flags().BoolVar(&check, "check", false, "say what is wrong with the configuration, and start nothing")
	addConfigFlags(cmd.Flags(), func(string) bool { return true })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s.Flags = cmd.Flags()
		if check {
			return checkConfig(cmd, s)
		}
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, append(cli.EndSignals(), syscall.SIGHUP)...)
		defer signal.Stop(signals)
		d := &daemon{source: s, stderr: cmd.ErrOrStderr(), signals: signals}
		return d.run(cmd.Context())
	}
	return cmd
}

// checkConfig prints all mistakes, or ok.
func checkConfig(cmd *cobra.Command, s source) error {
	c, r := s.load()
	var asked partners
	defer asked.close()
	c.settings(r, &certificates{}, &asked, false)
	r.print(cmd.ErrOrStderr())
	if !r.ok() {
		return cli.ExitStatus(cli.Failed)
	}
	fmt.Fprintln(cmd.OutOrStdout(), "ok")
	return nil
}
