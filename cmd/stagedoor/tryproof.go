package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/stagedoor/stagedoor/agent"
)

// proofTimeout bounds each step of the proof.
const proofTimeout = 30 * time.Second

// tryGateway is what the gateway is called in the configuration that is written
// for ssh, and tryTarget the task on it, as one would type it elsewhere.
const (
	tryGateway = "gateway"
	tryTarget  = tryTask + "@" + tryGateway
)

// show waits for the agent, proves that the task can be entered, and prints how.
// It returns when the user has seen enough.
func (t *try) show(ctx context.Context, registered <-chan agent.Registration) error {
	select {
	case <-registered:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(proofTimeout):
		return errors.New("the agent could not register with the gateway: run with --verbose to see why")
	}
	if err := t.prove(ctx); err != nil {
		return err
	}
	if t.connect {
		return t.enter(ctx)
	}
	if f, ok := t.stdin.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		fmt.Fprintln(t.stdout, "Run it in a terminal to go in yourself.")
		return nil
	}
	t.printCommands()
	fmt.Fprintln(t.stdout, "\nThe gateway and the agent run until you press Ctrl-C.")
	<-ctx.Done()
	return nil
}

// prove runs one command and one copy through the gateway, with the very
// configuration that is printed afterwards: first with the keys that ssh would
// use by itself, and if none of them works unattended with a throw-away key.
func (t *try) prove(ctx context.Context) error {
	var failed error
	for _, ownKeys := range []bool{true, false} {
		if err := t.writeConfig(ownKeys); err != nil {
			return err
		}
		if _, err := t.quiet(ctx, t.ssh, tryTarget, "true"); err == nil {
			failed = nil
			break
		} else {
			failed = err
		}
	}
	if failed != nil {
		return fmt.Errorf("ssh cannot enter the task: %w", failed)
	}
	fmt.Fprintln(t.stdout, "Through the gateway, with the ssh of this machine:")
	if err := t.proveCommand(ctx); err != nil {
		return err
	}
	if err := t.proveCopy(ctx); err != nil {
		return err
	}
	return t.proveEndToEnd(ctx)
}

func (t *try) proveCommand(ctx context.Context) error {
	const command = "echo $STAGEDOOR_TASK runs on $(uname -s), in $(pwd)"
	out, err := t.quiet(ctx, t.ssh, tryTarget, command)
	if err != nil {
		return fmt.Errorf("run a command through the gateway: %w", err)
	}
	fmt.Fprintf(t.stdout, "  ✓ ssh  %s", out)
	return nil
}

// proveCopy copies random bytes from the task to here and compares them.
func (t *try) proveCopy(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "stagedoor-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	want := make([]byte, 1<<20)
	rand.Read(want)
	from, to := filepath.Join(dir, "artifact"), filepath.Join(dir, "copy")
	if err := os.WriteFile(from, want, 0o600); err != nil {
		return err
	}
	if _, err := t.quiet(ctx, t.scp, tryTarget+":"+from, to); err != nil {
		return fmt.Errorf("copy a file through the gateway: %w", err)
	}
	got, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the file that scp brought through the gateway differs from the original")
	}
	fmt.Fprintln(t.stdout, "  ✓ scp  1 MiB, the same bytes on both ends")
	return nil
}

// proveEndToEnd enters the task through the gateway rather than by it: ssh
// accepts no host key but the agent's own.
func (t *try) proveEndToEnd(ctx context.Context) error {
	out, err := t.quiet(ctx, t.ssh, "-J", tryGateway, tryTask, "echo $STAGEDOOR_TASK")
	if err != nil {
		return fmt.Errorf("jump through the gateway: %w", err)
	}
	if out != tryTask+"\n" {
		return fmt.Errorf("jump through the gateway: the task says %q", out)
	}
	fmt.Fprintln(t.stdout, "  ✓ ssh -J  end to end: the gateway sees ciphertext only")
	return nil
}

// quiet runs ssh or scp without a terminal and without questions. Its error
// holds what the program said.
func (t *try) quiet(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-F", t.configFile(), "-o", "BatchMode=yes"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func (t *try) configFile() string { return filepath.Join(t.dir, "ssh_config") }

// writeConfig writes an ssh configuration that knows the host keys of gateway
// and task, so that the printed commands are short and ask nothing.
func (t *try) writeConfig(ownKeys bool) error {
	host, port, err := net.SplitHostPort(t.address)
	if err != nil {
		return err
	}
	known := filepath.Join(t.dir, "known_hosts")
	lines := fmt.Sprintf("stagedoor-try %sstagedoor-try-task %s", ssh.MarshalAuthorizedKey(t.hostKey.PublicKey()), ssh.MarshalAuthorizedKey(t.taskKey.PublicKey()))
	if err := os.WriteFile(known, []byte(lines), 0o600); err != nil {
		return fmt.Errorf("write the host keys for ssh: %w", err)
	}
	config := fmt.Sprintf("# Written by stagedoor try.\nHost %s\n  HostName %s\n  Port %s\n  HostKeyAlias stagedoor-try\n"+
		"Host %s\n  HostKeyAlias stagedoor-try-task\n"+
		"Host %[1]s %[4]s\n  UserKnownHostsFile %q\n  StrictHostKeyChecking yes\n",
		tryGateway, host, port, tryTask, known)
	if !ownKeys {
		config += fmt.Sprintf("  IdentityFile %q\n  IdentitiesOnly yes\n", t.throwFor)
	}
	if err := os.WriteFile(t.configFile(), []byte(config), 0o600); err != nil {
		return fmt.Errorf("write a configuration for ssh: %w", err)
	}
	return nil
}

// printCommands prints what the user can copy. What is printed works as it is.
func (t *try) printCommands() {
	config := shellQuote(t.configFile())
	fmt.Fprintf(t.stdout, "\nYour turn, in another terminal:\n\n    ssh -F %s %s\n", config, tryTarget)
	if file := t.someFile(); file != "" {
		fmt.Fprintf(t.stdout, "    scp -F %s %s:%s %s\n", config, tryTarget, shellQuote(file), shellQuote(os.TempDir()))
	}
	fmt.Fprintf(t.stdout, "    ssh -F %s -J %s %s\n", config, tryGateway, tryTask)
	fmt.Fprint(t.stdout, "\nOn a gateway of your own that is  ssh TASK@terminal.example.com  and, end to end,\n"+
		"ssh -J terminal.example.com TASK\n")
}

// someFile is a file of the task's directory that scp can fetch, if there is
// one.
func (t *try) someFile() string {
	entries, err := os.ReadDir(t.dropDir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") && !strings.ContainsAny(e.Name(), ": \t\n'\"\\*?[") {
			return e.Name()
		}
	}
	return ""
}

// enter runs ssh in the foreground, for --connect.
func (t *try) enter(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, t.ssh, "-F", t.configFile(), tryTarget)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.stdin, t.stdout, t.stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitStatus(exit.ExitCode())
	}
	return err
}

func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// selfSigned makes a certificate for one name or address, and the pool that
// trusts it and nothing else.
func selfSigned(name string) (tls.Certificate, *x509.CertPool, error) {
	var none tls.Certificate
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return none, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.ParseIP(name)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return none, nil, fmt.Errorf("make a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return none, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool, nil
}
