//go:build linux

package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// patience is a deadline against hanging, not an expectation.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_BACKGROUND") != "" {
		serveInBackground()
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/stagedoor/stagedoor/agent.awaitAnswer")) // a bug of x/crypto
}

// testHost is a Server on a loopback listener with a guest's key that it grants entry to.
type testHost struct {
	*Server
	t      *testing.T
	addr   string
	dir    string // of the task
	home   string // of the guest's client: keys, known_hosts, sockets
	guest  ssh.Signer
	events *eventLog
	logs   *syncBuffer
}

// eventLog notes the sessions that have ended.
type eventLog struct {
	mu    sync.Mutex
	ended []SessionInfo
	more  chan struct{}
}

func (l *eventLog) end(info SessionInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, info)
	select {
	case l.more <- struct{}{}:
	default:
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newSigner(t testing.TB) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(key)
	must(t, err)
	return signer, key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTestHost starts a host. change may alter the Server before it serves.
func newTestHost(t *testing.T, change func(*Server)) *testHost {
	t.Helper()
	hostKey, _ := newSigner(t)
	guest, guestKey := newSigner(t)
	h := &testHost{
		t: t, dir: t.TempDir(), home: t.TempDir(), guest: guest,
		events: &eventLog{more: make(chan struct{}, 1)}, logs: new(syncBuffer),
	}
	h.Server = &Server{
		Task:       "task-1",
		HostKey:    hostKey,
		Shell:      "/bin/bash",
		Env:        append(os.Environ(), "STAGEDOOR_TOKEN=secret", "HOME="+h.home, "TESTHOST="+h.home),
		Dir:        h.dir,
		Grant:      &auth.Grant{AuthorizedKeys: []string{string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(guest.PublicKey()))) + " alice"}},
		SessionEnd: h.events.end,
		Logger:     slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(h.Server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	t.Cleanup(func() {
		h.Close()
		<-served
		if t.Failed() {
			t.Log(h.logs.String())
		}
		if strings.Contains(h.logs.String(), "level=ERROR") {
			t.Errorf("an error in the log:\n%s", h.logs.String())
		}
	})
	h.writeClientFiles(guestKey)
	return h
}

func (h *testHost) writeClientFiles(key ed25519.PrivateKey) {
	block, err := ssh.MarshalPrivateKey(key, "")
	must(h.t, err)
	host, port, _ := net.SplitHostPort(h.addr)
	known := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(h.HostKey.PublicKey()))
	must(h.t, os.WriteFile(h.path("key"), pem.EncodeToMemory(block), 0o600))
	must(h.t, os.WriteFile(h.path("known_hosts"), []byte(known), 0o600))
	config := fmt.Sprintf(`Host task
	HostName %s
	Port %s
	User task-1
	IdentityFile %s
	IdentitiesOnly yes
	IdentityAgent none
	UserKnownHostsFile %s
	GlobalKnownHostsFile /dev/null
	BatchMode yes
	LogLevel ERROR
	ControlPath %s
`, host, port, h.path("key"), h.path("known_hosts"), h.path("ctl"))
	must(h.t, os.WriteFile(h.path("config"), []byte(config), 0o600))
}

func (h *testHost) path(name string) string { return filepath.Join(h.home, name) }

// file writes a file into the task's directory.
func (h *testHost) file(name string, data []byte) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(filepath.Join(h.dir, name)), 0o755))
	must(h.t, os.WriteFile(filepath.Join(h.dir, name), data, 0o644))
}

func (h *testHost) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	must(h.t, err)
	return string(b)
}

// client makes a command out of an OpenSSH program and its arguments.
func (h *testHost) client(program string, args ...string) *exec.Cmd {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, append([]string{"-F", h.path("config")}, args...)...)
	cmd.Dir = h.home
	return cmd
}

// result is what a finished command left.
type result struct {
	stdout, stderr string
	status         int
}

func (h *testHost) run(cmd *exec.Cmd, stdin string) result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		h.t.Fatalf("%s: %v", cmd, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ssh runs a command on the host.
func (h *testHost) ssh(stdin string, args ...string) result {
	h.t.Helper()
	return h.run(h.client("ssh", append([]string{"task"}, args...)...), stdin)
}

// want fails unless a command wrote exactly this and exited with 0.
func (r result) want(t *testing.T, stdout string) {
	t.Helper()
	r.wantAll(t, stdout, "", 0)
}

func (r result) wantAll(t *testing.T, stdout, stderr string, status int) {
	t.Helper()
	if r.stdout != stdout || r.stderr != stderr || r.status != status {
		t.Fatalf("stdout %s\nwant   %s\nstderr %s\nwant   %s\nstatus %d, want %d", brief(r.stdout), brief(stdout), brief(r.stderr), brief(stderr), r.status, status)
	}
}

func brief(s string) string {
	if len(s) > 2000 {
		return fmt.Sprintf("%q… (%d bytes)", s[:2000], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// dial connects with the library's client.
func (h *testHost) dial() *ssh.Client {
	h.t.Helper()
	c, err := ssh.Dial("tcp", h.addr, &ssh.ClientConfig{
		User:            "anyone",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(h.guest)},
		HostKeyCallback: ssh.FixedHostKey(h.HostKey.PublicKey()),
		Timeout:         patience,
	})
	must(h.t, err)
	h.t.Cleanup(func() { c.Close() })
	return c
}

// eventually polls for what no event tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// start begins a command; the function it returns waits for its result.
func start(t *testing.T, cmd *exec.Cmd) func(*testing.T) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	must(t, cmd.Start())
	return func(t *testing.T) result {
		t.Helper()
		cmd.Wait()
		return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	}
}

// master opens a connection that the clients after it share.
func (h *testHost) master(options ...string) {
	h.t.Helper()
	cmd := h.client("ssh", append(options, "-M", "-N", "task")...)
	must(h.t, cmd.Start())
	h.t.Cleanup(func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() })
	eventually(h.t, "the master's socket", func() bool { _, err := os.Stat(h.path("ctl")); return err == nil })
}

// pid reads a number from a file of the task, once it is there.
func (h *testHost) pid(name string) (pid int) {
	h.t.Helper()
	eventually(h.t, "a pid in "+name, func() bool {
		b, _ := os.ReadFile(filepath.Join(h.dir, name))
		n, _ := fmt.Sscan(string(b), &pid)
		return n == 1 && bytes.HasSuffix(b, []byte("\n"))
	})
	return pid
}

// alive tells whether a process runs. A zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b[bytes.LastIndexByte(b, ')'):], []byte(" Z "))
}

func encodeKey(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	must(t, err)
	return string(pem.EncodeToMemory(block))
}

// backgroundHost makes a host out of what TestStartedInTheBackground put into the environment.
func backgroundHost() (*Server, net.Listener, error) {
	key, err := ssh.ParsePrivateKey([]byte(os.Getenv("AGENT_TEST_KEY")))
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return &Server{Task: "task-1", HostKey: key, Grant: &auth.Grant{AuthorizedKeys: []string{os.Getenv("AGENT_TEST_BACKGROUND")}}}, l, err
}
