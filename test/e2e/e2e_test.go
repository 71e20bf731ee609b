// Package e2e drives the real binaries with the real ssh, scp, sftp and rsync,
// over real sockets and real TLS.
package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// lifetime is how long a client may run that a test waits for, with all that the
// test does meanwhile.
const lifetime = 2 * testenv.Patience

var binaries string // directory of stagedoor and stagedoor-agent, built with the race detector

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if path := os.Getenv("CODE_SERVER_SOCKET"); path != "" {
		return codeServer(path)
	}
	flag.Parse()
	// Most of a test is waiting: for programs to start, for a link to be given up.
	flag.Set("test.parallel", "8")
	dir, err := testenv.Build("-race")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	return m.Run()
}

// spawn starts a binary of ours.
func spawn(t *testing.T, env []string, program string, args ...string) *testenv.Process {
	t.Helper()
	return testenv.StartProcess(t, env, filepath.Join(binaries, program), args...)
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
	gateway *testenv.Process
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
		ssh: testenv.FreeAddress(t), https: testenv.FreeAddress(t), private: testenv.FreeAddress(t), key: testenv.NewKey(t, dir, "alice")}
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
func (w *world) startGateway() *testenv.Process {
	w.t.Helper()
	p := spawn(w.t, nil, "stagedoor", "gateway", "--config", w.config)
	p.WaitFor("gateway ready")
	signer, err := os.ReadFile(filepath.Join(w.dir, "state", "ssh_host_ed25519_key"))
	mustDo(w.t, err)
	key, err := ssh.ParsePrivateKey(signer)
	mustDo(w.t, err)
	w.hostKey = key.PublicKey()
	return p
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
func (w *world) startAgent(env []string, args ...string) *testenv.Process {
	w.t.Helper()
	env = append([]string{
		"STAGEDOOR_TOKEN=" + w.token(), "STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + w.ca, "SHELL=/bin/bash",
		"HOME=" + w.dir, // and no profile of whoever runs the tests
	}, env...)
	p := spawn(w.t, env, "stagedoor-agent", append([]string{"connect", "--dir", w.home}, args...)...)
	p.WaitFor("ssh -p ")
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
	return exec.CommandContext(clientContext(w.t), testenv.Need(w.t, program), append(w.options(), args...)...)
}

// ssh runs a command on the task and returns its output.
func (w *world) run(args ...string) string {
	w.t.Helper()
	return mustRun(w.t, w.command("ssh", append([]string{w.target()}, args...)...))
}

// clientContext ends with the lifetime of a client.
func clientContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), lifetime)
	t.Cleanup(cancel)
	return ctx
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

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
