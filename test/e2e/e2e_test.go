// Package e2e drives the real binaries with the real ssh, scp, sftp and rsync,
// over real sockets and real TLS.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// patience is how long anything may take before a test calls it stuck.
const patience = 60 * time.Second

var binaries string // directory of stagedoor and stagedoor-agent, built with the race detector

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if path := os.Getenv("CODE_SERVER_SOCKET"); path != "" {
		return codeServer(path)
	}
	dir, err := os.MkdirTemp("", "stagedoor-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-race", "-o", dir+"/", "../../cmd/stagedoor", "../../cmd/stagedoor-agent")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	binaries = dir
	return m.Run()
}

// process is a program of ours that runs.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed at its exit
	err  error         // read after done
}

// spawn starts a binary. It is ended with the test: first by SIGTERM, and a race
// that its detector saw fails the test.
func spawn(t *testing.T, env []string, program string, args ...string) *process {
	t.Helper()
	return spawnAs(t, &syscall.SysProcAttr{Setpgid: true}, env, program, args...)
}

// spawnAs is spawn for another user.
func spawnAs(t *testing.T, attr *syscall.SysProcAttr, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: program, cmd: exec.Command(filepath.Join(binaries, program), args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = attr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			p.cmd.Process.Signal(syscall.SIGABRT) // for the stacks
			<-p.done
			t.Errorf("%s does not end on SIGTERM", p.name)
		}
		text := p.out.String()
		if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic") {
			t.Errorf("%s has a defect", p.name)
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, text)
		}
	})
	return p
}

// waitFor returns when the process has printed text.
func (p *process) waitFor(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if !p.out.wait(ctx, func(s string) bool { return strings.Contains(s, text) }, p.done) {
		p.t.Fatalf("%s did not print %q; it printed:\n%s", p.name, text, p.out.String())
	}
}

// output is what a process prints, with a signal at each write.
type output struct {
	mu      sync.Mutex // guards what follows
	buf     bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait returns true when ok holds for the output, false when ctx or the process
// ended before it did.
func (o *output) wait(ctx context.Context, ok func(string) bool, done <-chan struct{}) bool {
	for {
		o.mu.Lock()
		if o.changed == nil {
			o.changed = make(chan struct{})
		}
		text, changed := o.buf.String(), o.changed
		o.mu.Unlock()
		if ok(text) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		case <-done:
			return ok(o.String())
		}
	}
}

// world is a gateway process and what it takes to reach it.
type world struct {
	t       *testing.T
	dir     string // the task's directory is below it
	task    string // name
	home    string // working directory of the task
	config  string // file
	ssh     string // addresses
	https   string
	private string
	ca      string // file with the TLS certificate that agents trust
	hostKey ssh.PublicKey
	key     testenv.Key // opens the task
	laptop  *laptop     // whose ssh is run; nil: one that reads no configuration
	gateway *process
}

// newWorld starts a gateway with the given lines added to its configuration.
func newWorld(t *testing.T, more ...string) *world {
	t.Helper()
	return newWorldAt(t, "127.0.0.1", more...)
}

// newWorldAt starts a gateway that calls itself by the given name.
func newWorldAt(t *testing.T, name string, more ...string) *world {
	t.Helper()
	for _, program := range []string{"ssh", "scp"} {
		testenv.Need(t, program)
	}
	dir := t.TempDir()
	w := &world{t: t, dir: dir, task: "task-1", home: filepath.Join(dir, "work"), config: filepath.Join(dir, "gateway.yaml"),
		ssh: freeAddress(t), https: freeAddress(t), private: freeAddress(t), key: testenv.NewKey(t, dir, "alice")}
	mustDo(t, os.Mkdir(w.home, 0o755))
	cert, _ := testenv.Certificate(t)
	certFile, keyFile := testenv.WriteCertificate(t, dir, cert)
	w.ca = certFile
	_, port, _ := strings.Cut(w.ssh, ":")
	lines := append([]string{
		"state_dir: " + filepath.Join(dir, "state"),
		"ssh:", "  listen: " + w.ssh, "  address: " + name + ":" + port,
		"https:", "  listen: " + w.https, "  certificate: " + certFile, "  key: " + keyFile,
		"private:", "  listen: " + w.private,
	}, more...)
	mustDo(t, os.WriteFile(w.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	w.gateway = w.startGateway()
	return w
}

// startGateway runs the gateway and returns when it is ready.
func (w *world) startGateway() *process {
	w.t.Helper()
	p := spawn(w.t, nil, "stagedoor", "gateway", "--config", w.config)
	w.awaitReady(p)
	signer, err := os.ReadFile(filepath.Join(w.dir, "state", "ssh_host_ed25519_key"))
	mustDo(w.t, err)
	key, err := ssh.ParsePrivateKey(signer)
	mustDo(w.t, err)
	w.hostKey = key.PublicKey()
	return p
}

func (w *world) awaitReady(p *process) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if resp, err := http.Get("http://" + w.private + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-p.done:
			w.t.Fatalf("the gateway ended: %v\n%s", p.err, p.out.String())
		case <-deadline:
			w.t.Fatalf("the gateway is not ready:\n%s", p.out.String())
		}
	}
}

// token is what `stagedoor token` prints for the world's key.
func (w *world) token(args ...string) string {
	w.t.Helper()
	args = append([]string{"token", "--config", w.config, "--task", w.task, "--authorized-keys", w.key.File + ".pub"}, args...)
	cmd := exec.CommandContext(w.t.Context(), filepath.Join(binaries, "stagedoor"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("stagedoor token: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// startAgent runs an agent in the task's directory and returns when it printed
// the ssh command.
func (w *world) startAgent(env []string, args ...string) *process {
	w.t.Helper()
	env = append([]string{
		"STAGEDOOR_TOKEN=" + w.token(), "STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + w.ca, "SHELL=/bin/bash",
		"HOME=" + w.dir, // and no profile of whoever runs the tests
	}, env...)
	p := spawn(w.t, env, "stagedoor-agent", append([]string{"connect", "--dir", w.home}, args...)...)
	p.waitFor("ssh -p ")
	return p
}

// options are those with which ssh, scp and sftp reach the task unattended.
func (w *world) options() []string {
	if w.laptop != nil {
		return w.laptop.options()
	}
	return testenv.SSHOptions(w.t, w.dir, w.ssh, w.hostKey, w.key)
}

// target is the task as ssh, scp and rsync name it.
func (w *world) target() string {
	if w.laptop != nil {
		return w.task
	}
	return w.task + "@127.0.0.1"
}

// command is an OpenSSH program with the options that reach the task.
func (w *world) command(program string, args ...string) *exec.Cmd {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return exec.CommandContext(ctx, testenv.Need(w.t, program), append(w.options(), args...)...)
}

// ssh runs a command on the task and returns its output.
func (w *world) run(args ...string) string {
	w.t.Helper()
	return mustRun(w.t, w.command("ssh", append([]string{w.target()}, args...)...))
}

func mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", filepath.Base(cmd.Path), err, out, stderr.String())
	}
	return string(out)
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// freeAddress is a port of the loopback interface that nobody listened on a
// moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	mustDo(t, err)
	defer l.Close()
	return l.Addr().String()
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
