package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

const patience = 60 * time.Second

// logBuffer is a log that can be waited upon.
type logBuffer struct {
	mu      sync.Mutex // guards what follows
	buf     bytes.Buffer
	changed chan struct{}

	ended chan struct{} // closed when nothing more will be written; nil: unknown
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.buf.Write(p)
}

// String returns the log so far.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await waits until text is in the log n times.
func (b *logBuffer) await(t *testing.T, text string, n int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		b.mu.Lock()
		if strings.Count(b.buf.String(), text) >= n {
			b.mu.Unlock()
			return
		}
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
			continue
		case <-b.ended:
		case <-deadline:
		}
		if strings.Count(b.String(), text) < n {
			t.Fatalf("%q is not in the log %d times:\n%s", text, n, b.String())
		}
	}
}

// running is a gateway in this process, with its signals in the test's hands.
type running struct {
	t       *testing.T
	dir     string
	file    string // its configuration
	d       *daemon
	signals chan os.Signal
	log     *logBuffer
	done    chan error
	cancel  context.CancelFunc
}

// startDaemon starts a gateway on free ports, with a certificate from files and
// more lines in its configuration.
func startDaemon(t *testing.T, more string) *running {
	t.Helper()
	r := &running{t: t, dir: t.TempDir(), signals: make(chan os.Signal), log: &logBuffer{ended: make(chan struct{})}, done: make(chan error, 1)}
	cert, _ := testenv.Certificate(t)
	testenv.WriteCertificate(t, r.dir, cert)
	r.file = filepath.Join(r.dir, "c.yaml")
	r.configure(more)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	r.d = &daemon{source: source{File: r.file}, stderr: r.log, signals: r.signals}
	go func() {
		defer close(r.log.ended)
		r.done <- r.d.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	r.log.await(t, "gateway ready", 1)
	return r
}

func (r *running) configure(more string) {
	r.t.Helper()
	write(r.t, r.file, `
domain: localhost
state_dir: state
ssh: {listen: "127.0.0.1:0"}
https: {listen: "127.0.0.1:0", certificate: cert.pem, key: key.pem}
private: {listen: "127.0.0.1:0"}
`+more)
}

// signal returns when the gateway has taken it.
func (r *running) signal(s os.Signal) {
	r.t.Helper()
	select {
	case r.signals <- s:
	case <-time.After(patience):
		r.t.Fatalf("%v was not taken", s)
	}
}

// end waits for run to return.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err // for the clean-up
		return err
	case <-time.After(patience):
		r.t.Fatalf("the gateway did not end:\n%s", r.log)
		return nil
	}
}

func (r *running) sshAddress() string   { return r.d.listeners.ssh.Addr().String() }
func (r *running) httpsAddress() string { return r.d.listeners.https.Addr().String() }

// get returns the status and body of a page, and the certificate behind it.
func get(t *testing.T, url string) (int, string, *x509.Certificate) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.TLS == nil {
		return resp.StatusCode, string(body), nil
	}
	return resp.StatusCode, string(body), resp.TLS.PeerCertificates[0]
}

func TestReload(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := startDaemon(t, "hosts: {audience: one}\n")
	defer r.cancel()
	page := "https://" + r.httpsAddress() + "/"
	_, text, before := get(t, page)
	_, port, _ := net.SplitHostPort(r.sshAddress())
	if want := "ssh -p " + port + " TASK@localhost"; !strings.Contains(text, want) {
		t.Errorf("the address is not that of the listener: %s", text)
	}

	// New settings and files count at once; what cannot change is named.
	cert, _ := testenv.Certificate(t)
	testenv.WriteCertificate(t, r.dir, cert)
	config := strings.Replace(read(t, r.file), `ssh: {listen: "127.0.0.1:0"}`, `ssh: {listen: "127.0.0.1:1", address: "new.example.com:2222"}`, 1)
	write(t, r.file, config)
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)
	r.log.await(t, `"key":"ssh.listen","from":"127.0.0.1:0","to":"127.0.0.1:1"`, 1)
	_, text, after := get(t, page)
	if !strings.Contains(text, "ssh -p 2222 TASK@new.example.com") {
		t.Errorf("the address is not the new one: %s", text)
	}
	if after.Equal(before) || !after.Equal(cert.Leaf) {
		t.Error("the certificate is not the new one")
	}

	// A bad file changes nothing, and each mistake is told with its line.
	write(t, r.file, strings.Replace(config, "new.example.com", "newer.example.com", 1)+"log: {level: loud}\nguests: {authorized_keys: [missing]}\n")
	r.signal(syscall.SIGHUP)
	lines := strings.Count(config, "\n")
	r.log.await(t, fmt.Sprintf("c.yaml:%d: log.level: ", lines+1), 1)
	r.log.await(t, fmt.Sprintf("c.yaml:%d: guests.authorized_keys: ", lines+2), 1)
	r.log.await(t, "the old one stays in force", 2)
	if _, text, _ := get(t, page); !strings.Contains(text, "new.example.com") {
		t.Errorf("a bad file changed the address: %s", text)
	}

	// The level of the log is among what changes.
	write(t, r.file, config+"log: {level: error}\n")
	r.signal(syscall.SIGHUP)
	r.signal(syscall.SIGHUP) // taken when the one before is done
	if strings.Count(r.log.String(), "configuration reloaded") != 1 {
		t.Errorf("the log is as loud as before:\n%s", r.log)
	}
}

// Whoever starts a gateway has to know what to keep a copy of.
func TestFirstStartNamesItsKeys(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := startDaemon(t, "")
	for name, purpose := range purposes {
		r.log.await(t, fmt.Sprintf(`"file":%q,"purpose":%q`, filepath.Join(r.dir, "state", name), purpose), 1)
	}
	r.signal(syscall.SIGHUP)
	r.signal(syscall.SIGTERM) // taken when the reload is done
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(r.log.String(), "key made"); n != len(purposes) {
		t.Errorf("%d keys were made, want %d:\n%s", n, len(purposes), r.log)
	}
}

func TestSignalDrains(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := startDaemon(t, "")
	r.signal(syscall.SIGTERM)
	if err := r.end(); err != nil {
		t.Errorf("run returned %v", err)
	}
	for _, l := range []net.Listener{r.d.listeners.ssh, r.d.listeners.https, r.d.listeners.private} {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v is still open: %v", l.Addr(), err)
		}
	}
}

// A lame duck takes connections and says that it wants none. A second signal
// ends it at once.
func TestLameDuck(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := startDaemon(t, "drain: {lame_duck: 1h, deadline: 1h}\n")
	ready := "http://" + r.d.listeners.private.Addr().String() + "/readyz"
	if status, _, _ := get(t, ready); status != http.StatusOK {
		t.Errorf("before: /readyz says %d", status)
	}
	r.signal(syscall.SIGTERM)
	r.log.await(t, "draining; a second signal ends at once", 1)
	r.signal(syscall.SIGHUP) // taken by the part that waits for the second signal
	r.log.await(t, "not reloading while draining", 1)
	poll(t, "/readyz fails", func() bool {
		status, _, _ := get(t, ready)
		return status == http.StatusServiceUnavailable
	})
	c, err := net.Dial("tcp", r.sshAddress())
	if err != nil {
		t.Fatalf("guests are turned away already: %v", err)
	}
	banner := make([]byte, 4)
	if _, err := io.ReadFull(c, banner); err != nil || string(banner) != "SSH-" {
		t.Errorf("a guest was greeted with %q, %v", banner, err)
	}
	c.Close()
	r.signal(os.Interrupt)
	if err := r.end(); err != nil {
		t.Errorf("run returned %v", err)
	}
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// A port that is taken keeps the gateway from starting, and nothing stays bound.
func TestStartIsAllOrNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	taken := testenv.Listen(t)
	dir := t.TempDir()
	cert, _ := testenv.Certificate(t)
	testenv.WriteCertificate(t, dir, cert)
	free := testenv.Listen(t)
	address := free.Addr().String()
	free.Close()
	file := write(t, filepath.Join(dir, "c.yaml"), fmt.Sprintf(
		"domain: localhost\nstate_dir: state\nssh: {listen: %q}\nhttps: {listen: %q, certificate: cert.pem, key: key.pem}\n", address, taken.Addr()))
	err := (&daemon{source: source{File: file}, stderr: io.Discard}).run(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "https.listen: ") {
		t.Errorf("got %v", err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("ssh.listen is still bound: %v", err)
	}
	l.Close()
}

// What a first start makes is for this user alone, and is kept.
func TestKeysAreMadeOnce(t *testing.T) {
	r := startDaemon(t, "")
	r.signal(syscall.SIGTERM)
	r.end()
	for _, name := range []string{hostKeyFile, guestCAFile, renewalKeyFile, tokenKeyFile} {
		info, err := os.Stat(filepath.Join(r.dir, "state", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	before := read(t, filepath.Join(r.dir, "state", hostKeyFile))
	again := &daemon{source: source{File: r.file}, stderr: io.Discard}
	settings, err := again.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer again.server.Close()
	defer again.listeners.close()
	if read(t, filepath.Join(r.dir, "state", hostKeyFile)) != before || len(settings.HostKeys) != 1 {
		t.Error("the host key is not the one of before")
	}
}

// A file with mistakes makes no keys and starts nothing.
func TestMistakesStartNothing(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "c.yaml"), "domain: a.example.com\nstate_dir: state\nlog: {level: loud}\n")
	var out bytes.Buffer
	err := (&daemon{source: source{File: file}, stderr: &out}).run(t.Context())
	if !errors.Is(err, cli.ExitStatus(1)) || !strings.Contains(out.String(), "c.yaml:3: log.level") {
		t.Errorf("got %v, %s", err, &out)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("keys were made")
	}
}

// startHost has a host register for task-1, into which the keys in a file may
// enter, and returns when it has. change may be nil.
func (r *running) startHost(keys string, change func(*agent.Agent)) {
	r.t.Helper()
	r.startHostBy([]string{"--authorized-keys", keys}, change)
}

// startHostBy does so with flags for stagedoor token.
func (r *running) startHostBy(flags []string, change func(*agent.Agent)) {
	t := r.t
	t.Helper()
	var token bytes.Buffer
	args := append([]string{"token", "--config", r.file, "--task", "task-1"}, flags...)
	if err := run(t.Context(), args, nil, &token, io.Discard); err != nil {
		t.Fatal(err)
	}
	roots, err := cli.LoadRoots(filepath.Join(r.dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	registered := make(chan agent.Registration, 1)
	host := &agent.Agent{
		Gateway: r.httpsAddress(), Token: strings.TrimSpace(token.String()), TLSConfig: &tls.Config{RootCAs: roots},
		Dir: r.dir, Registered: func(reg agent.Registration) { registered <- reg },
	}
	if change != nil {
		change(host)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- host.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-registered:
	case err := <-ended:
		ended <- err
		t.Fatalf("the agent ended: %v\n%s", err, r.log)
	case <-time.After(patience):
		t.Fatalf("the agent did not register:\n%s", r.log)
	}
}

// TestProxyCommand enters a task with the real ssh over a WebSocket, with
// nothing configured beyond what startDaemon sets: the token is signed with the
// key that the gateway made.
func TestProxyCommand(t *testing.T) {
	testenv.Need(t, "ssh")
	r := startDaemon(t, "")
	key := testenv.NewKey(t, r.dir, "alice")
	r.startHost(key.File+".pub", nil)

	_, port, _ := net.SplitHostPort(r.httpsAddress())
	hostKey, err := ssh.ParsePrivateKey([]byte(read(t, filepath.Join(r.dir, "state", hostKeyFile))))
	if err != nil {
		t.Fatal(err)
	}
	options := testenv.SSHOptions(t, r.dir, r.sshAddress(), hostKey.PublicKey(), key)
	options = append(options, "-o", "ProxyCommand=stagedoor proxy --ca-file "+filepath.Join(r.dir, "cert.pem")+" %h "+port)
	cmd := exec.CommandContext(t.Context(), "ssh", append(options, "task-1@127.0.0.1", "cat; echo done >&2; exit 7")...)
	cmd.Stdin = strings.NewReader("through HTTPS")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("ssh ended with %v\n%s", err, r.log)
	}
	if stdout.String() != "through HTTPS" || stderr.String() != "done\n" {
		t.Errorf("got %q and %q", &stdout, &stderr)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
