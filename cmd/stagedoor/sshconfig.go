package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/tunnel"
)

const sshConfigHelp = `Ssh-config prints what makes ssh reach the tasks behind a gateway by name, for a
developer's ~/.ssh/config. It needs nothing else on their machine, then or later:

    stagedoor ssh-config --gateway terminal.example.com >> ~/.ssh/config
    ssh task-1234.terminal.example.com     end to end
    ssh task-1234@terminal.example.com     spliced: the gateway can read along

End to end ssh asks about the host key of each task that is new to it. Where a CI
signs its hosts' keys (--host-ca) it never asks, once it knows the authority and
the gateway:

    stagedoor ssh-config --gateway terminal.example.com --host-ca ca.pub >> ~/.ssh/config
    stagedoor ssh-config --gateway terminal.example.com --host-ca ca.pub \
        --host-key gateway.pub --known-hosts >> ~/.ssh/known_hosts

On the gateway's own machine, --config takes its name, port and host keys from
there. With neither --gateway nor --config, ` + installedConfig + ` is read
if it is there. All flags give the same lines to everybody: print them once, and
hand them out.`

type sshConfigOptions struct {
	gateway    string
	hostKeys   []string
	hostCAs    []string
	identity   string
	tasks      []string
	httpsPort  string // empty: over SSH's own port
	spliced    bool
	knownHosts bool
	source     source
}

func newSSHConfigCommand() *cobra.Command {
	o := sshConfigOptions{source: source{File: os.Getenv("STAGEDOOR_CONFIG"), Installed: installedConfig}}
	cmd := &cobra.Command{
		Use:   "ssh-config {--gateway HOST[:PORT] | --config FILE} [flags]",
		Short: "Print what makes ssh reach tasks by name",
		Long:  sshConfigHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.source.Flags = cmd.Flags()
			return o.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.gateway, "gateway", "", "`host[:port]` of the gateway's SSH")
	f.StringVarP(&o.source.File, "config", "c", o.source.File, "configuration `file` of the gateway, for its name, port and host keys (default "+installedConfig+")")
	f.StringArrayVar(&o.hostCAs, "host-ca", nil, "`file` with the public key that signs the host keys of tasks; may be given several times")
	f.StringArrayVar(&o.hostKeys, "host-key", nil, "`file` with a public host key of the gateway, for --known-hosts; may be given several times")
	f.BoolVar(&o.knownHosts, "known-hosts", false, "print the lines for ~/.ssh/known_hosts instead")
	f.StringVar(&o.identity, "identity", "", "`file` of the key to sign in with, and no other (default what ssh finds)")
	f.StringArrayVar(&o.tasks, "tasks", nil, "`pattern` of tasks that are reached without the domain, too, as in 'task-*'; may be given several times")
	f.BoolVar(&o.spliced, "spliced", false, "leave out the names that lead end to end")
	f.StringVar(&o.httpsPort, "over-https", "", "connect over HTTPS, by stagedoor proxy, for networks that let nothing else out; `port` if it is not 443")
	f.Lookup("over-https").NoOptDefVal = "443"
	return cmd
}

func (o *sshConfigOptions) run(stdout, stderr io.Writer) error {
	c, err := o.check(stderr)
	if err != nil {
		return err
	}
	text := c.block()
	if o.knownHosts {
		if text, err = c.knownHosts(); err != nil {
			return err
		}
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// check returns what is printed. Everything in it has been found to mean itself
// where it is going to stand.
func (o *sshConfigOptions) check(stderr io.Writer) (*sshConfig, error) {
	c := &sshConfig{spliced: o.spliced}
	if err := o.checkGateway(c, stderr); err != nil {
		return nil, err
	}
	var err error
	for _, list := range []struct {
		flag  string
		files []string
		keys  *[]ssh.PublicKey
	}{{"host-key", o.hostKeys, &c.hostKeys}, {"host-ca", o.hostCAs, &c.authorities}} {
		for _, file := range list.files {
			key, err := readPublicKey(file)
			if err != nil {
				return nil, cli.UsageError("--%s: %w", list.flag, err)
			}
			*list.keys = append(*list.keys, key)
		}
	}
	if c.identity, err = checkIdentity(o.identity); err != nil {
		return nil, cli.UsageError("--identity: %w", err)
	}
	for _, pattern := range o.tasks {
		if err := checkPattern(pattern); err != nil {
			return nil, cli.UsageError("--tasks: %w", err)
		}
		c.tasks = append(c.tasks, pattern)
	}
	if o.httpsPort != "" {
		if _, c.httpsPort, err = tunnel.ParseAddress(net.JoinHostPort(c.host, o.httpsPort)); err != nil {
			return nil, cli.UsageError("--over-https=%q: %w", o.httpsPort, err)
		}
	}
	if !c.spliced && len(c.patterns()) == 0 {
		return nil, cli.UsageError("a gateway without a name has no names for its tasks: give --tasks 'task-*' for the names that yours have, or --spliced to go without")
	}
	return c, nil
}

// checkGateway finds out how guests reach the gateway, from the flag or from its
// own configuration.
func (o *sshConfigOptions) checkGateway(c *sshConfig, stderr io.Writer) error {
	address := o.gateway
	if address == "" {
		s := o.source.orInstalled()
		if s.File == "" {
			return cli.UsageError("which gateway? give the name that people type with --gateway, as in --gateway terminal.example.com")
		}
		config, r := s.load()
		if !r.ok() {
			r.print(stderr)
			return cli.ExitStatus(cli.Failed)
		}
		address = config.address()
		keys, err := config.publicHostKeys()
		if err != nil {
			return err
		}
		c.hostKeys = keys
	}
	host, port, err := parseGatewayAddress(address)
	if err != nil {
		return cli.UsageError("--gateway %.80q: %w", address, err)
	}
	c.host, c.port = host, port
	if !isAddress(host) {
		c.domain = host
	}
	return nil
}

// parseGatewayAddress reads host[:port]. What it returns can stand anywhere in
// a configuration of ssh: no blanks, quotes, patterns or tokens.
func parseGatewayAddress(s string) (host, port string, err error) {
	if isAddress(s) {
		s = net.JoinHostPort(s, "22")
	} else if !strings.Contains(s, ":") || strings.HasSuffix(s, "]") {
		s += ":22"
	}
	host, port, err = tunnel.ParseAddress(s)
	if err != nil {
		return "", "", fmt.Errorf("%w; write it as people type it, as in terminal.example.com or terminal.example.com:2222", err)
	}
	host = strings.ToLower(host)
	if last := host[strings.LastIndexByte(host, '.')+1:]; !isAddress(host) && isNumber(last) {
		return "", "", errors.New("a name does not end in a number, and this is no address either")
	}
	return host, port, nil
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isNumber tells what the C library would take for part of an address, such as
// 127.1 or 0x7f000001.
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// publicHostKeys are those that guests see, now or next, without a key being
// made.
func (c *Config) publicHostKeys() ([]ssh.PublicKey, error) {
	files := c.SSH.HostKeys
	if len(files) == 0 {
		files = []string{filepath.Join(c.StateDir, hostKeyFile)}
	}
	files = append(slices.Clone(files), c.SSH.NextHostKeys...)
	var keys []ssh.PublicKey
	for _, file := range files {
		signer, err := auth.LoadSigner(file)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf("there is no host key at %s: start the gateway once", file)
		case errors.Is(err, os.ErrPermission):
			return nil, fmt.Errorf("this user may not read the host key %s: run as the gateway's user (sudo), or give --gateway and --host-key", file)
		case err != nil:
			return nil, err
		}
		keys = append(keys, signer.PublicKey())
	}
	return keys, nil
}

// maxPublicKeyFile is far beyond any.
const maxPublicKeyFile = 64 << 10

// readPublicKey reads a .pub file.
func readPublicKey(file string) (ssh.PublicKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, errors.New(fileError(file, err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPublicKeyFile))
	if err != nil {
		return nil, err
	}
	keys, err := auth.ParseAuthorizedKeys(file, data)
	if err != nil {
		return nil, errors.New(fileError(file, err))
	}
	if n := len(keys.PublicKeys()); n != 1 {
		return nil, fmt.Errorf("%s holds %d keys, expected one, as in a .pub file", file, n)
	}
	return keys.PublicKeys()[0], nil
}

// checkIdentity makes the name of a key file safe to stand in quotes. ssh
// replaces tokens (%h) and variables (${HOME}) in it, and reads ~ as the home
// directory.
func checkIdentity(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	if strings.ContainsFunc(file, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return "", errors.New("the name of the file has characters that cannot be printed")
	}
	if rest, home := strings.CutPrefix(file, "~/"); home && rest != "" {
		file = "~/" + filepath.ToSlash(rest)
	} else {
		abs, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(abs); err != nil {
			return "", errors.New(fileError(file, err))
		}
		file = filepath.ToSlash(abs)
	}
	if strings.ContainsAny(file, "\"'\\$") {
		return "", fmt.Errorf("%q: ssh gives a meaning of their own to quotes, backslashes and dollars in it: rename the file", file)
	}
	return strings.ReplaceAll(file, "%", "%%"), nil
}

// checkPattern takes letters that names of tasks have, and wildcards. A pattern
// that matches everything would take every ssh of this user to the gateway.
func checkPattern(s string) error {
	if s == "" || len(s) > 63 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-*?") != "" || s[0] == '-' {
		return fmt.Errorf("%.80q is no pattern of task names: write letters, digits, dots and hyphens, and * for any of them, as in 'task-*'", s)
	}
	if strings.Trim(s, "*?.") == "" {
		return fmt.Errorf("%q matches every host there is: begin with what the names of your tasks have in common, as in 'task-*'", s)
	}
	return nil
}
