package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

const tokenHelp = `Token mints a host token: with it an agent may register as the host of one task,
for as long as --ttl says. It also carries the grant: whose keys may enter the
task, what they may do there, and with --deadline until when. The token is printed
alone; keep it as you keep a password.

    export STAGEDOOR_TOKEN=$(stagedoor token --task task-1234 --ttl 2h \
        --authorized-keys ~/.ssh/id_ed25519.pub)

--account github:alice lets in the keys that are public at https://github.com/alice.keys
while the task runs, and --account github:alice#583231 those of the account with
that number, however it is called by then (https://api.github.com/users/alice tells
it). Names of forges are github, gitlab, codeberg, and those of the gateway's own
configuration.

A line with cert-authority lets in who has a certificate by that key for the task:

    cert-authority ssh-ed25519 AAAA… our CA

It is signed with the gateway's own key, in its state directory, so that it works
at once with a gateway of this user on this machine. A CI system elsewhere has a
key of its own (stagedoor keygen), and the gateway its public half
(hosts.token_keys).`

type tokenOptions struct {
	task           string
	ttl            time.Duration
	deadline       time.Duration
	authorizedKeys []string
	accounts       []string

	oneTimePassword bool
	held            *auth.GrantHold // nil: as the job says
	permissions     []string
	permitOpen      []string // as given; nil: anywhere
	permitListen    []string
	limits          auth.GrantLimits
	key             string
	source          source
	audience        string
}

func newTokenCommand() *cobra.Command {
	o := tokenOptions{source: source{File: os.Getenv("STAGEDOOR_CONFIG"), Installed: installedConfig}}
	var held holdFlags
	cmd := &cobra.Command{
		Use:   "token --task TASK [--ttl DURATION] --authorized-keys FILE... [flags]",
		Short: "Mint the token by which a host registers",
		Long:  tokenHelp,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.source.Flags = cmd.Flags()
			// A shell expands --authorized-keys *.pub into one flag and
			// several arguments.
			if len(args) > 0 && len(o.authorizedKeys) == 0 {
				return cli.UsageError("unexpected argument %q; see %s --help", args[0], cmd.CommandPath())
			}
			o.authorizedKeys = append(o.authorizedKeys, args...)
			var err error
			if o.held, err = held.grant(cmd.Flags()); err != nil {
				return err
			}
			return o.run(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.task, "task", "", "name of the `task`, which guests type")
	f.DurationVar(&o.ttl, "ttl", 2*time.Hour, "how long the token is good for registering; an agent that has registered can come back after that")
	f.DurationVar(&o.deadline, "deadline", 0, "when access ends, counted from now: the host is gone then, and who is inside is cut off (default none)")
	f.StringArrayVar(&o.authorizedKeys, "authorized-keys", nil, "`file` with the public keys of those who may enter, - for standard input; may be given several times")
	f.StringSliceVar(&o.accounts, "account", nil, "`account` on a forge whose public keys may enter, as in github:alice; may be given several times")
	f.BoolVar(&o.oneTimePassword, "one-time-password", false, "have the job's log show a password that lets in one guest, where the gateway allows that")
	f.StringSliceVar(&o.permissions, "permissions", nil, "what they may do: a `list` of "+strings.Join(shortPermissions(), ", ")+" (default all but gateway-ports)")
	f.StringSliceVar(&o.permitOpen, "permit-open", nil, "where they may forward to: a `list` of host:port, or none (default anywhere)")
	f.StringSliceVar(&o.permitListen, "permit-listen", nil, "what they may have the host listen on: a `list` of [host:]port, or none (default anything)")
	held.add(f)
	f.IntVar(&o.limits.Guests, "max-guests", 0, "how many guests may be in at a time, by `number` of connections (default any number)")
	f.IntVar(&o.limits.Sessions, "max-sessions", 0, "how many sessions (shells, commands, copies) may be open at a time, by `number` (default any number)")
	f.DurationVar(&o.limits.SessionTime, "session-time", 0, "how long a guest may stay at a time (default as long as the gateway allows)")
	f.StringVar(&o.key, "key", "", "`file` with the signing key or the shared secret (default token_key in the state directory)")
	f.StringVarP(&o.source.File, "config", "c", o.source.File, "configuration `file` of the gateway, for its state directory and audience")
	addConfigFlags(f, func(key string) bool { return key == "state_dir" })
	f.StringVar(&o.audience, "audience", "", "audience of the token, if the gateway asks for another than "+auth.DefaultAudience)
	return cmd
}

func (o *tokenOptions) run(stdin io.Reader, stdout, stderr io.Writer) error {
	task, err := o.check()
	if err != nil {
		return err
	}
	grant, err := o.grant(stdin)
	if err != nil {
		return err
	}
	key, err := o.signingKey(stderr)
	if err != nil {
		return err
	}
	now := time.Now()
	token, err := auth.MintToken(key, auth.Token{Task: task, Audience: o.audience, IssuedAt: now, Expires: now.Add(o.ttl), Grant: *grant})
	if err != nil {
		return fmt.Errorf("mint a token: %w", err)
	}
	if len(grant.AuthorizedKeys)+len(grant.Accounts) == 0 && !grant.OneTimePassword {
		fmt.Fprintln(stderr, "stagedoor: note: without --authorized-keys or --account only those may enter whom the gateway's own configuration lets in (guests)")
	}
	_, err = fmt.Fprintln(stdout, token)
	return err
}

func (o *tokenOptions) check() (auth.TaskID, error) {
	if o.task == "" {
		return "", cli.UsageError("which task? give its name with --task")
	}
	task, err := auth.ParseTaskID(o.task)
	if err != nil {
		return "", cli.UsageError("--task: %w", err)
	}
	if o.ttl < time.Second {
		return "", cli.UsageError("--ttl %v: the token would have expired when it is used; give a second or more, as in 2h", o.ttl)
	}
	if o.deadline < 0 || o.deadline > 0 && o.deadline < time.Second {
		return "", cli.UsageError("--deadline %v: give a second or more, as in 4h", o.deadline)
	}
	if err := o.limits.Check(); err != nil {
		return "", cli.UsageError("--max-guests, --max-sessions, --session-time: %w", err)
	}
	return task, nil
}

func (o *tokenOptions) grant(stdin io.Reader) (*auth.Grant, error) {
	var grant auth.Grant
	if o.deadline > 0 {
		grant.Until = time.Now().Add(o.deadline)
	}
	for _, file := range o.authorizedKeys {
		data, err := readInput(file, stdin)
		if err != nil {
			return nil, fmt.Errorf("--authorized-keys: %s", fileError(file, err))
		}
		keys, err := auth.ParseAuthorizedKeys(file, data)
		if err != nil {
			return nil, fmt.Errorf("--authorized-keys: %s", fileError(file, err))
		}
		if len(keys.Lines()) == 0 {
			return nil, fmt.Errorf("--authorized-keys: there is no key in %s", file)
		}
		grant.AuthorizedKeys = append(grant.AuthorizedKeys, keys.Lines()...)
	}
	for _, account := range o.accounts {
		if err := checkAccount(account); err != nil {
			return nil, cli.UsageError("--account: %w", err)
		}
	}
	grant.Accounts, grant.OneTimePassword, grant.Hold = o.accounts, o.oneTimePassword, o.held
	for _, s := range o.permissions {
		name, err := parsePermission(s)
		if err != nil {
			return nil, cli.UsageError("--permissions: %w", err)
		}
		grant.Permissions = append(grant.Permissions, name)
	}
	var err error
	if grant.PermitOpen, err = forwards(o.permitOpen, auth.CheckPermitOpen); err != nil {
		return nil, cli.UsageError("--permit-open: %w", err)
	}
	if grant.PermitListen, err = forwards(o.permitListen, auth.CheckPermitListen); err != nil {
		return nil, cli.UsageError("--permit-listen: %w", err)
	}
	grant.Limits = o.limits
	return &grant, nil
}

// checkAccount finds what a gateway would not look up. Which forges one knows is
// in its configuration.
func checkAccount(s string) error {
	if err := auth.CheckAccount(s); err != nil {
		return err
	}
	_, err := forge.ParseAccount(s)
	return err
}

// forwards checks a list of forwardings. None, as in sshd's PermitOpen, is an
// empty list, where nil is no restriction.
func forwards(list []string, check func(string) error) ([]string, error) {
	if len(list) == 1 && list[0] == "none" {
		return []string{}, nil
	}
	for _, entry := range list {
		if err := check(entry); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func readInput(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(stdin, maxAuthorizedKeys))
	}
	return os.ReadFile(file)
}

// signingKey finds the key that the gateway trusts. It makes none: a key that
// the gateway does not know would mint tokens that it refuses.
func (o *tokenOptions) signingKey(stderr io.Writer) (any, error) {
	if o.key != "" && o.source.File == "" {
		return auth.LoadTokenKey(o.key)
	}
	config, r := o.source.orInstalled().load()
	if r.file != "" && !r.ok() {
		r.print(stderr)
		return nil, cli.ExitStatus(cli.Failed)
	}
	if o.audience == "" {
		o.audience = config.Hosts.Audience
	}
	if o.key != "" {
		return auth.LoadTokenKey(o.key)
	}
	if len(config.Hosts.TokenKeys) > 0 {
		where, _ := r.where("hosts.token_keys")
		return nil, cli.UsageError("%s: the gateway trusts its hosts.token_keys alone: give the private half of one of them with --key", where)
	}
	if config.StateDir == "" {
		_, err := defaultStateDir()
		return nil, fmt.Errorf("%w, or give a key with --key", err)
	}
	file := filepath.Join(config.StateDir, tokenKeyFile)
	key, err := auth.LoadTokenKey(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no token key at %s: start the gateway once, name its configuration with --config, or give a key with --key", file)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("this user may not read the token key %s: run as the gateway's user (sudo), or give a key with --key", file)
	}
	return key, err
}
