package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
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
sessions see none of these. What begins with STAGEDOOR there is the agent's own,
such as STAGEDOOR_TASK.

Exit status:
  0  ended by SIGINT, SIGTERM or SIGHUP, or there was no token
  1  something went wrong on this machine
  2  called wrongly
  3  refused: the gateway does not accept the token
  4  refused: the token, or the time of the task, has run out
  5  replaced: a newer agent serves the task
  6  refused for another reason, which the message says: another agent has used
     the token, for example`

func newConnectCommand(args []string) *cobra.Command {
	var c config
	var detach bool
	var ready int
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
			system := ci.Detect(os.Getenv)
			if !c.asked(system, whenAlways) {
				return nil
			}
			if detach {
				return c.detach(cmd.Context(), args, system, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			c.ready = readyFile(ready)
			return c.connect(cmd.Context(), system, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.addFlags(f, "info")
	f.BoolVar(&detach, "detach", false, "return once guests can enter, and stay in the background for the steps that follow")
	f.IntVar(&ready, "ready", 0, "descriptor that is told when guests can enter")
	f.MarkHidden("ready")
	return cmd
}

// connect lets guests in until ctx ends.
func (c *config) connect(ctx context.Context, system *ci.System, stdout, stderr io.Writer) error {
	d, err := c.open(ctx, &announcer{system: system, log: stderr, command: stdout, now: time.Now}, func() (place, error) { return claimPlace(system) })
	if err != nil {
		return unlessNoAccess(err, stderr)
	}
	if c.ready != nil {
		go d.tellReady(c.ready)
	}
	select {
	case <-ctx.Done():
	case <-d.done:
	}
	err = d.close("the job was cancelled")
	if err == nil && c.ready != nil {
		os.Remove(d.place.log()) // of an agent in the background: it has nothing to say
		os.Remove(filepath.Dir(d.place.base))
	}
	return unlessNoAccess(err, stderr)
}

// unlessNoAccess tells why nobody gets access, and makes no failure of that.
func unlessNoAccess(err error, stderr io.Writer) error {
	none, ok := errors.AsType[noAccess](err)
	if !ok {
		return err
	}
	fmt.Fprintf(stderr, "stagedoor-agent: %s\n", string(none))
	return nil
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

func (c *config) agent(log *slog.Logger) (*agent.Agent, error) {
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
		Clocks:       c.clocks,
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
