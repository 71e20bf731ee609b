package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/gateway"
)

const blockHelp = `Block refuses guests with a key (--key) or of a name (--identity), or a task (--task),
whatever lets them in: until unblock, or --for a time. What is open is ended. The
gateway remembers it over restarts. Without a flag it lists who is blocked.

Go by the key where you can: a name is what whoever let the guest in wrote behind its
key, or an account of a forge. Who jumps into a task (ssh -J) is refused at the
gateway, by the key that it shows there.

    stagedoor block --key SHA256:VJnk35l2Km19stnmFCj+mblcr0kOh9WkrNM8q9KnHKU --for 24h`

func newBlockCommand() *cobra.Command {
	var who whom
	cmd := newAdminCommand(&cobra.Command{
		Use:   "block [{--key KEY | --identity NAME | --task TASK} [--for DURATION] [--reason TEXT]] [flags]",
		Short: "Refuse guests or a task from now on",
		Long:  blockHelp,
		Args:  cobra.NoArgs,
	}, func(a *adminCommand, _ []string) error {
		if who == (whom{}) {
			return a.listBlocks()
		}
		question, err := who.ask()
		if err != nil {
			return err
		}
		if question.For < 0 {
			return cli.UsageError("--for %v: give how long the block lasts, as in 24h", question.For)
		}
		var result gateway.AdminResult
		if done, err := a.ask(gateway.AdminBlockPath, question, &result); done || err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, "blocked; ended", ended(result))
		return err
	})
	who.flags(cmd, false)
	cmd.Flags().DurationVar(&who.request.For, "for", 0, "how long (default until stagedoor unblock)")
	cmd.Flags().StringVar(&who.request.Reason, "reason", "", "`text` that those who are thrown out are told")
	return cmd
}

func (a *adminCommand) listBlocks() error {
	var blocks []gateway.Block
	if done, err := a.ask(gateway.AdminBlocksPath, nil, &blocks); done || err != nil {
		return err
	}
	rows := [][]string{{"BLOCKED", "SINCE", "ENDS", "BY", "REASON"}}
	for _, b := range blocks {
		rows = append(rows, []string{blockedWhom(b), b.At.Local().Format(time.DateTime), ends(b.Until), orDash(b.By), b.Reason})
	}
	return table(a.out, rows)
}

func blockedWhom(b gateway.Block) string {
	switch {
	case b.Key != "":
		return "key " + b.Key
	case b.Identity != "":
		return "identity " + b.Identity
	}
	return "task " + b.Task
}

func newUnblockCommand() *cobra.Command {
	var who whom
	cmd := newAdminCommand(&cobra.Command{
		Use:   "unblock {--key KEY | --identity NAME | --task TASK} [flags]",
		Short: "Take a block back",
		Long:  "Unblock takes a block back. stagedoor block lists them.",
		Args:  cobra.NoArgs,
	}, func(a *adminCommand, _ []string) error {
		question, err := who.ask()
		if err != nil {
			return err
		}
		var result gateway.AdminResult
		if done, err := a.ask(gateway.AdminUnblockPath, question, &result); done || err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, "unblocked")
		return err
	})
	who.flags(cmd, false)
	return cmd
}

// keyFingerprint is s itself when it is a fingerprint, or that of the public key
// in the file s.
func keyFingerprint(s string) (string, error) {
	if strings.HasPrefix(s, "SHA256:") {
		return s, nil
	}
	key, _, err := loadGuestKey(s)
	if err != nil {
		return "", err
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return ssh.FingerprintSHA256(key), nil
}

// loadGuestKey reads the first key of a .pub file, and returns its line too.
func loadGuestKey(file string) (ssh.PublicKey, string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, "", errors.New(fileError(file, err))
	}
	key, comment, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("%s: there is no public key in it: give the .pub file", file)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	if comment != "" {
		line += " " + comment
	}
	return key, line, nil
}
