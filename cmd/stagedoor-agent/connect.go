package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/logs"
	"github.com/stagedoor/stagedoor/tunnel"
)

// Statuses that connect ends with when the gateway refuses it for good, beside
// those of package cli. connectHelp documents them.
const (
	statusBadToken = 3
	statusExpired  = 4
	statusReplaced = 5
	statusRefused  = 6
)

const connectHelp = `Connect makes this machine the host of the task that the token names, and prints
the ssh command by which guests enter, alone on a line of standard output. It
dials again for as long as it runs whenever the link is lost. Logs go to
standard error, and so does the command for guests who enter end to end: their
ssh signs in on this machine, and the gateway passes on what it cannot read. It
carries the host key, so take it from here and not from anything that the
gateway shows. Guests whom the token gives no key cannot use it. The keys of
accounts that the token names (github:alice) are looked up from here for them; the
log says where that cannot be done.

Without a token of its own, a job of GitHub Actions, GitLab CI, Buildkite or
CircleCI shows the ID token that its provider gives it, if the gateway accepts
those: the gateway names the task then, and lets in whoever set off the run, by
the keys of their account. A job that may not have such a token is told what to
change, and connect ends with status 0.

Access is opt-in: without any token, connect says so and ends with status 0, so
that the same CI step does for every task.

Every flag can be a variable instead, STAGEDOOR_TOKEN for --token. Guests'
sessions see none of the variables that begin with STAGEDOOR_, other than
STAGEDOOR_TASK.

Exit status:
  0  ended by SIGINT, SIGTERM or SIGHUP, or there was no token
  1  something went wrong on this machine
  2  called wrongly
  3  refused: the gateway does not accept the token
  4  refused: the token, or the time of the task, has run out
  5  replaced: a newer agent serves the task
  6  refused for another reason, which the message says: another agent has used
     the token, for example`

func newConnectCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "connect --gateway ADDRESS [flags]",
		Short: "Dial a gateway and let guests in",
		Long:  connectHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd.Flags()); err != nil {
				return err
			}
			warnVariables(cmd.Flags(), cmd.ErrOrStderr())
			return c.connect(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.addFlags(cmd.Flags())
	return cmd
}

func (c *config) connect(ctx context.Context, stdout, stderr io.Writer) error {
	provider := currentProvider()
	if c.token == "" && (provider == nil || c.gateway == "") {
		fmt.Fprintln(stderr, "stagedoor-agent: no token (STAGEDOOR_TOKEN), so nobody gets access to this task")
		return nil
	}
	if c.gateway == "" {
		return cli.UsageError("there is a token, but no gateway: name it with --gateway or STAGEDOOR_GATEWAY")
	}
	if _, err := tunnel.ParseGateway(c.gateway); err != nil {
		return cli.UsageError("%w", err)
	}
	if err := hideFromGuests(); err != nil {
		return fmt.Errorf("keep the token from guests: %w", err)
	}
	host, err := c.agent(stderr)
	if err != nil {
		return err
	}
	defer host.Forges.Close()
	host.Registered = (&announcer{stdout: stdout, stderr: stderr}).registered
	if c.token == "" {
		host.NewToken = c.newToken(provider)
	}
	// Whatever this process starts has no business with it.
	os.Unsetenv("STAGEDOOR_TOKEN")
	err = host.Run(ctx)
	if missing, ok := errors.AsType[noPermission](err); ok {
		fmt.Fprintf(stderr, "stagedoor-agent: nobody gets access to this task: %s\n", string(missing))
		return nil
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		return nil
	}
	return withStatus(err)
}

// newToken asks a provider.
func (c *config) newToken(p *provider) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		audience := c.audience
		if audience == "" {
			var err error
			if audience, err = audienceOf(c.gateway); err != nil {
				return "", err
			}
		}
		token, err := p.token(ctx, audience)
		if err != nil {
			return "", fmt.Errorf("token of %s: %w", p.name, err)
		}
		return token, nil
	}
}

func (c *config) agent(stderr io.Writer) (*agent.Agent, error) {
	log, err := logs.New(stderr, c.logLevel, c.logFormat)
	if err != nil {
		return nil, err
	}
	roots, err := cli.LoadRoots(c.caFile)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	if err := checkDir(c.dir); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	if c.shell != "" {
		if _, err := exec.LookPath(c.shell); err != nil {
			return nil, fmt.Errorf("--shell: %w", err)
		}
	}
	a := &agent.Agent{
		Gateway:      c.gateway,
		Token:        c.token,
		StateDir:     c.stateDir,
		EndToEndOnly: c.endToEndOnly,
		Shell:        c.shell,
		LoginShell:   c.loginShell,
		Dir:          c.dir,
		AcceptEnv:    c.acceptEnv,
		HangupGrace:  c.hangupGrace,
		Labels:       c.allLabels(),
		Logger:       log,
	}
	if roots != nil {
		a.TLSConfig = &tls.Config{RootCAs: roots}
	}
	if err := c.loadHostKey(a); err != nil {
		return nil, err
	}
	a.Forges, err = c.resolver()
	return a, err
}

// resolver knows the public forges, unless --forge says otherwise of their names,
// and those of --forge.
func (c *config) resolver() (*forge.Resolver, error) {
	forges := forge.PublicForges()
	for _, name := range slices.Sorted(maps.Keys(c.forges)) {
		kind, url, _ := strings.Cut(c.forges[name], "@")
		if url == "" {
			url = "https://" + name
		}
		forges = slices.DeleteFunc(forges, func(f forge.Forge) bool { return f.Name == name })
		forges = append(forges, forge.Forge{Name: name, Kind: forge.Kind(kind), URL: url})
	}
	resolver, err := forge.New(forge.Config{Forges: forges})
	if err != nil {
		return nil, cli.UsageError("--forge: %w", err)
	}
	return resolver, nil
}

// loadHostKey reads the host key and its certificate, if they were given.
func (c *config) loadHostKey(a *agent.Agent) (err error) {
	if c.hostKey != "" {
		if a.HostKey, err = auth.LoadSigner(c.hostKey); err != nil {
			return fmt.Errorf("--host-key: %w", err)
		}
	}
	if c.hostCert != "" {
		if a.HostCertificate, err = loadHostCertificate(c.hostCert); err != nil {
			return fmt.Errorf("--host-certificate: %w", err)
		}
	}
	return nil
}

// loadHostCertificate reads what ssh-keygen -s writes.
func loadHostCertificate(file string) (*ssh.Certificate, error) {
	text, err := oneOf("", file)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: no certificate in it: it takes what ssh-keygen -s KEY -h writes", file)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s: a %s is no certificate: make one with ssh-keygen -s KEY -h", file, key.Type())
	}
	return cert, nil
}

// checkDir fails at once where otherwise every session would.
func checkDir(dir string) error {
	if dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return err
}

// announcer prints how guests enter, and again only when that has changed:
// the agent registers anew whenever the link was lost.
type announcer struct {
	stdout, stderr io.Writer
	last           agent.Registration
}

func (a *announcer) registered(r agent.Registration) {
	if r.SSHCommand == "" {
		fmt.Fprintln(a.stderr, "stagedoor-agent: the gateway gave no address that could be shown: ask its operator to set ssh.address")
		return
	}
	if r.SSHCommand != a.last.SSHCommand {
		fmt.Fprintln(a.stdout, r.SSHCommand)
	}
	if r.OneTimePassword != "" && r.OneTimePassword != a.last.OneTimePassword {
		fmt.Fprintf(a.stderr, "stagedoor-agent: for one guest without a key, who is asked for it, the one-time password: %s\n", r.OneTimePassword)
	}
	if r.EndToEndCommand != "" && r.EndToEndCommand != a.last.EndToEndCommand {
		a.endToEnd(r)
	}
	a.last = r
}

// endToEnd goes to standard error, where it finds its way into the job's log:
// what reads standard output expects one command.
func (a *announcer) endToEnd(r agent.Registration) {
	fmt.Fprintf(a.stderr, "stagedoor-agent: end to end, so that the gateway sees no plaintext:\n  %s\n", r.EndToEndCommand)
	if r.CertifiedCommand != "" {
		fmt.Fprintf(a.stderr, "stagedoor-agent: the same for those whose known_hosts has the CA of the host certificate:\n  %s\n", r.CertifiedCommand)
	}
	fmt.Fprintf(a.stderr, "stagedoor-agent: host key there: %s\n", r.Fingerprint)
}

// withStatus gives an error the status that connectHelp promises for it.
func withStatus(err error) error {
	if err == nil {
		return nil
	}
	status := cli.Failed
	if refusal, ok := errors.AsType[*tunnel.Refusal](err); ok {
		status = refusalStatus(refusal.Code)
	} else if errors.Is(err, auth.ErrTokenExpired) {
		status = statusExpired
	} else if errors.Is(err, auth.ErrTokenInvalid) {
		status = statusBadToken
	}
	return &cli.StatusError{Status: status, Err: err}
}

func refusalStatus(code string) int {
	switch code {
	case tunnel.CodeBadToken:
		return statusBadToken
	case tunnel.CodeExpired:
		return statusExpired
	case tunnel.CodeReplaced:
		return statusReplaced
	}
	return statusRefused
}
