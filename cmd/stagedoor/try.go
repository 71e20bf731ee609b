package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
	"golang.org/x/sync/errgroup"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/cmd/internal/logs"
	"github.com/stagedoor/stagedoor/gateway"
)

// tryTask is the task that `stagedoor try` hosts.
const tryTask = "demo"

// tryPort is where the gateway of `stagedoor try` listens if it can, so that a
// command from an earlier try works again.
const tryPort = "2222"

func newTryCommand() *cobra.Command {
	var connect, verbose bool
	cmd := &cobra.Command{
		Use:   "try [flags] [-- COMMAND...]",
		Short: "Run a gateway and an agent on this machine and enter it with ssh",
		Long: "Try starts a gateway and an agent for the task \"demo\" on this machine, with nothing\n" +
			"configured. It enters the task by itself with ssh and scp, through the gateway and\n" +
			"end to end, and prints the commands with which you do. Only this machine can reach it.\n\n" +
			"With a command, as in stagedoor try -- false, the task is a CI job that runs it by\n" +
			"stagedoor-agent run: when it fails, the job is held, and you can enter it.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && connect {
				return cli.UsageError("--connect is for a try without a command")
			}
			t := &try{command: args, stdin: cmd.InOrStdin(), stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), connect: connect, verbose: verbose}
			return t.run(cmd.Context())
		},
	}
	cmd.Flags().SetInterspersed(false) // flags after the command are its own
	cmd.Flags().BoolVar(&connect, "connect", false, "go straight into a shell on the task, and end with it")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the logs of the gateway and the agent")
	return cmd
}

// try is one run of the command.
type try struct {
	stdin            io.Reader
	stdout, stderr   io.Writer
	connect, verbose bool
	command          []string // of a job; none: the task runs nothing

	dir      string // for keys, and for the ssh configuration that it prints
	dropDir  string // the task's working directory as guests see it
	ssh, scp string
	address  string
	hostKey  ssh.Signer // the gateway's
	taskKey  ssh.Signer // the host key of the task, for this try
	throwKey ssh.Signer
	throwFor string // file of throwKey

	certificate []byte // the gateway's, for HTTPS, in DER
}

func (t *try) run(ctx context.Context) error {
	if err := t.findPrograms(); err != nil {
		return err
	}
	if err := t.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	registered := make(chan agent.Registration, 1)
	host, err := t.start(ctx, group)
	if err != nil {
		return err
	}
	show := func() error { return t.runJob(ctx, host) }
	if len(t.command) == 0 {
		host.Registered = func(r agent.Registration) { sendOnce(registered, r) }
		group.Go(func() error { return host.Run(ctx) })
		show = func() error { return t.show(ctx, registered) }
	}
	group.Go(func() error {
		defer cancel()
		return show()
	})
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (t *try) findPrograms() error {
	for program, path := range map[string]*string{"ssh": &t.ssh, "scp": &t.scp} {
		found, err := exec.LookPath(program)
		if err != nil {
			return fmt.Errorf("%s is not installed: install the OpenSSH client (Debian, Ubuntu: apt install openssh-client; Fedora: dnf install openssh-clients; Alpine: apk add openssh-client)", program)
		}
		*path = found
	}
	return nil
}

// prepare makes what is kept between tries, on the first one.
func (t *try) prepare() (err error) {
	if t.dropDir, err = os.Getwd(); err != nil {
		return err
	}
	if t.dir, err = tryDir(); err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for keys: %w", err)
	}
	var created bool
	if t.hostKey, created, err = auth.LoadOrCreateSigner(filepath.Join(t.dir, "ssh_host_ed25519_key")); err != nil {
		return err
	}
	if created {
		fmt.Fprintf(t.stdout, "First start: keys are made in %s\n", t.dir)
	}
	t.throwFor = filepath.Join(t.dir, "id_ed25519")
	if t.throwKey, _, err = auth.LoadOrCreateSigner(t.throwFor); err != nil {
		return err
	}
	t.taskKey, err = newSigner()
	return err
}

// tryDir is in the user's own state directory, for root too: what a try makes
// is not the machine's.
func tryDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "stagedoor", "try"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no directory for keys: set HOME: %w", err)
	}
	return filepath.Join(home, ".local", "state", "stagedoor", "try"), nil
}

// start runs the gateway in group until ctx ends, and returns the agent for it,
// which does not run yet.
func (t *try) start(ctx context.Context, group *errgroup.Group) (*agent.Agent, error) {
	level := "error" // what works is not worth a line
	if t.verbose {
		level = "info"
	}
	log, err := logs.New(t.stderr, level, "auto")
	if err != nil {
		return nil, err
	}
	sshListener, err := listenTry()
	if err != nil {
		return nil, err
	}
	httpsListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t.address = sshListener.Addr().String()
	settings, token, roots, err := t.settings()
	if err != nil {
		return nil, err
	}
	server, err := gateway.New(settings, gateway.Options{Logger: log.With("part", "gateway")})
	if err != nil {
		return nil, err
	}
	serve := func(f func(net.Listener) error, l net.Listener) {
		group.Go(func() error {
			if err := f(l); !errors.Is(err, gateway.ErrClosed) {
				return err
			}
			return nil
		})
	}
	serve(server.ServeSSH, sshListener)
	serve(server.ServeHTTPS, httpsListener)
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return &agent.Agent{
		Gateway:   httpsListener.Addr().String(),
		Token:     token,
		HostKey:   t.taskKey,
		TLSConfig: &tls.Config{RootCAs: roots},
		Dir:       t.dropDir,
		Logger:    log.With("part", "agent"),
	}, nil
}

func sendOnce[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

// listenTry prefers the port of earlier tries.
func listenTry() (net.Listener, error) {
	if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", tryPort)); err == nil {
		return l, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// settings are those of a gateway that lives as long as this process: all keys
// but the host key are made anew.
func (t *try) settings() (gateway.Settings, string, *x509.CertPool, error) {
	var none gateway.Settings
	cert, roots, err := selfSigned("127.0.0.1")
	if err != nil {
		return none, "", nil, err
	}
	tokenPublic, tokenKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return none, "", nil, err
	}
	ca, err := newSigner()
	if err != nil {
		return none, "", nil, err
	}
	_, renewalKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return none, "", nil, err
	}
	t.certificate = cert.Certificate[0]
	now := time.Now()
	token, err := auth.MintToken(tokenKey, auth.Token{
		Task: tryTask, ID: rand.Text(), IssuedAt: now, Expires: now.Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: t.guestKeys()},
	})
	if err != nil {
		return none, "", nil, err
	}
	return gateway.Settings{
		HostKeys:    []ssh.Signer{t.hostKey},
		CA:          ca,
		RenewalKey:  renewalKey,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		Tokens:      &auth.TokenVerifier{Keys: []any{tokenPublic}},
		Guests:      auth.GrantKeys{},
		Address:     t.address,
	}, token, roots, nil
}

// guestKeys are the user's own public keys and the throw-away one.
func (t *try) guestKeys() []string {
	lines := []string{authorizedLine(t.throwKey.PublicKey(), "stagedoor-try")}
	add := func(key ssh.PublicKey, comment string) {
		if auth.CheckKey(key) == nil {
			lines = append(lines, authorizedLine(key, comment))
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		files, _ := filepath.Glob(filepath.Join(home, ".ssh", "*.pub"))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			if key, comment, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
				add(key, comment)
			}
		}
	}
	for _, key := range agentKeys() {
		add(key, key.Comment)
	}
	return lines
}

// agentKeys are those in the user's ssh-agent, none when there is none.
func agentKeys() []*sshagent.Key {
	c, err := net.DialTimeout("unix", os.Getenv("SSH_AUTH_SOCK"), time.Second)
	if err != nil {
		return nil
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	keys, err := sshagent.NewClient(c).List()
	if err != nil {
		return nil
	}
	return keys
}

func authorizedLine(key ssh.PublicKey, comment string) string {
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	comment = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, comment)
	return strings.TrimSpace(line + " " + comment)
}
