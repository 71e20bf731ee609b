package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/logs"
	"github.com/stagedoor/stagedoor/internal/typo"
)

// config is what connect is told, by flags and by the environment.
type config struct {
	gateway, gatewayFile string
	token, tokenFile     string
	audience             string
	caFile               string
	dir, shell           string
	loginShell           bool
	acceptEnv            []string
	hangupGrace          time.Duration
	endToEndOnly         bool
	forges               map[string]string
	hostKey, hostCert    string
	stateDir             string
	labels               map[string]string
	env                  []string // of sessions; nil: that of this process
	logLevel, logFormat  string

	when       string
	clocks     hold.Settings
	publishing publishing

	ready *os.File // told once guests can enter; nil: nobody waits for that
}

// Values of --when.
const (
	whenAlways = "always"
	whenDebug  = "debug"
)

// A clock is a flag for a field of hold.Settings: it tells a zero that was given
// from none.
type clock struct{ d *time.Duration }

func (c clock) String() string { return "" }
func (c clock) Type() string   { return "duration" }

func (c clock) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	if d < 0 {
		return errors.New("it is negative")
	}
	*c.d = hold.Exactly(d)
	return nil
}

// addFlags makes a flag for every setting. Each is also a variable: --log-level
// is STAGEDOOR_LOG_LEVEL.
func (c *config) addFlags(f *pflag.FlagSet, logLevel string) {
	f.SortFlags = false
	f.StringVar(&c.gateway, "gateway", "", "`address` of the gateway: host, host:port or https://host; wss://host goes through a WebSocket at once")
	f.StringVar(&c.gatewayFile, "gateway-file", "", "`file` with that address")
	f.StringVar(&c.token, "token", "", "the host `token`; every user of this machine can read it in the list of processes, so prefer the variable or a file")
	f.StringVar(&c.tokenFile, "token-file", "", "`file` with the host token")
	f.StringVar(&c.audience, "audience", "", "audience of the ID token to ask a CI provider for (default https://HOST of the gateway)")
	f.StringVar(&c.caFile, "ca-file", "", "`file` with the certificates to trust, in the place of the system's (PEM)")
	f.StringVar(&c.dir, "dir", "", "`directory` where sessions start (default the current one)")
	f.StringVar(&c.shell, "shell", "", "`path` of the guests' shell (default the user's login shell, bash or sh)")
	f.BoolVar(&c.loginShell, "login-shell", false, "make shells login shells; the profile that these read may replace PATH")
	f.StringSliceVar(&c.acceptEnv, "accept-env", nil, "`names` of further variables that guests may set, with * and ?")
	f.DurationVar(&c.hangupGrace, "hangup-grace", 5*time.Second, "how long processes may go on after SIGHUP told them that their guest has gone")
	f.BoolVar(&c.endToEndOnly, "end-to-end-only", false, "let in only guests who sign in here, with a key that the token names (ssh -J); nobody who runs the gateway can")
	f.StringToStringVar(&c.forges, "forge", nil, "`name=kind` of a forge beside the public ones whose accounts the token may name, at https://NAME: github, gitlab, gitea or forgejo; or name=kind@URL")
	f.StringVar(&c.hostKey, "host-key", "", "`file` with the private SSH host key to show to those guests, Ed25519 or ECDSA (default a new one each time)")
	f.StringVar(&c.hostCert, "host-certificate", "", "`file` with an OpenSSH host certificate for that key, in the name of the task")
	f.StringVar(&c.stateDir, "state-dir", "", "`directory` that keeps the agent's keys between runs (default: new keys each time)")
	f.StringToStringVar(&c.labels, "label", nil, "`name=value` that describes the host to the gateway; may be given several times")
	f.StringVar(&c.when, "when", "", "always, or debug: only in a run that was started with the CI system's own debug switch, or with STAGEDOOR_DEBUG=1")
	f.Var(clock{&c.clocks.Wait}, "wait", "how long a held job waits for its first guest; 0: not at all (default 10m)")
	f.Var(clock{&c.clocks.Grace}, "grace", "how long it is held after the last guest has left, or has done anything (default 5m)")
	f.Var(clock{&c.clocks.Hard}, "hard", "how long it is held at most, whoever is there (default 60m, and less where the job itself has less)")
	c.publishing.addFlags(f)
	f.StringVar(&c.logLevel, "log-level", logLevel, "one of "+strings.Join(logs.Levels, ", "))
	f.StringVar(&c.logFormat, "log-format", "text", "one of "+strings.Join(logs.Formats, ", ")+"; auto is text on a terminal and JSON otherwise") // text: people read the logs of jobs
}

// exclusive are the settings with two sources: a flag for one silences the
// variable of the other.
var exclusive = map[string]string{"token": "token-file", "token-file": "token", "gateway": "gateway-file", "gateway-file": "gateway",
	"slack-token": "slack-token-file", "slack-token-file": "slack-token"}

// load completes what the flags say by the environment and by files.
func (c *config) load(f *pflag.FlagSet) error {
	for flag, other := range exclusive {
		if flag < other && f.Changed(flag) && f.Changed(other) {
			return cli.UsageError("give either --%s or --%s", flag, other)
		}
	}
	if err := fromEnvironment(f); err != nil {
		return err
	}
	var err error
	if c.token, err = oneOf(c.token, c.tokenFile); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if c.gateway, err = oneOf(c.gateway, c.gatewayFile); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if c.hostCert != "" && c.hostKey == "" && c.stateDir == "" {
		return cli.UsageError("--host-certificate: it is for one key, so give that too with --host-key or --state-dir")
	}
	if err := c.publishing.check(); err != nil {
		return err
	}
	if c.when != "" && c.when != whenAlways && c.when != whenDebug {
		return cli.UsageError("--when: there is no %q; use always or debug", c.when)
	}
	if !slices.Contains(logs.Formats, c.logFormat) {
		return cli.UsageError("--log-format: unknown format %q; use one of %s", c.logFormat, strings.Join(logs.Formats, ", "))
	}
	if _, err := logs.ParseLevel(c.logLevel); err != nil {
		return cli.UsageError("--log-level: %w", err)
	}
	return nil
}

// asked tells whether this run is to have a door. fallback is the --when that
// counts where none was given.
func (c *config) asked(system *ci.System, fallback string) bool {
	when := c.when
	if when == "" {
		when = fallback
	}
	return when == whenAlways || system.Debug
}

// fromEnvironment sets each flag that was not given from its variable, if that
// is not empty.
func fromEnvironment(f *pflag.FlagSet) error {
	given := map[string]bool{}
	f.Visit(func(flag *pflag.Flag) { given[flag.Name] = true })
	var err error
	f.VisitAll(func(flag *pflag.Flag) {
		name := variableOf(flag)
		value := os.Getenv(name)
		if value == "" || given[flag.Name] || given[exclusive[flag.Name]] || flag.Name == "help" {
			return
		}
		if e := flag.Value.Set(value); e != nil && err == nil {
			err = cli.UsageError("%s: %w", name, withoutValue(flag.Name, e))
		}
	})
	return err
}

// warnVariables warns of variables that are close to a setting. Others may be
// somebody else's: a job has many.
func warnVariables(f *pflag.FlagSet, stderr io.Writer) {
	known := []string{"STAGEDOOR_TASK", agent.ControlVariable, ci.DebugVariable}
	f.VisitAll(func(flag *pflag.Flag) {
		known = append(known, variableOf(flag))
	})
	for _, name := range cli.UnknownVariables(known) {
		if meant := typo.Closest(name, known); meant != "" {
			fmt.Fprintf(stderr, "stagedoor-agent: warning: the variable %q means nothing; did you mean %s?\n", name, meant)
		}
	}
}

func variableOf(flag *pflag.Flag) string {
	return "STAGEDOOR_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
}

// withoutValue keeps the token out of errors.
func withoutValue(flag string, err error) error {
	if flag == "token" || flag == "slack-token" || flag == "webhook" {
		return errors.New("it cannot be read")
	}
	return err
}

// maxSecretFile is beyond the largest token.
const maxSecretFile = 64 << 10

// oneOf returns the value, or the content of the file that stands for it.
func oneOf(value, file string) (string, error) {
	if value != "" || file == "" {
		return strings.TrimSpace(value), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSecretFile {
		return "", fmt.Errorf("%s is larger than %d bytes", file, maxSecretFile)
	}
	return strings.TrimSpace(string(data)), nil
}
