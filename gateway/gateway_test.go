package gateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a gateway on loopback and what it takes to reach it.
type world struct {
	t        *testing.T
	dir      string
	server   *gateway.Server
	settings gateway.Settings
	ssh      string // address of the SSH listener
	https    string
	hostKey  ssh.Signer
	tokenKey ed25519.PrivateKey
	roots    *x509.CertPool
	log      *logBuffer
}

// newWorld starts a gateway, with settings changed by each of change.
func newWorld(t *testing.T, change ...func(*gateway.Settings)) *world {
	t.Helper()
	return newWorldWith(t, gateway.Options{}, change...)
}

// newWorldWith does so with options, to which it adds the logger.
func newWorldWith(t *testing.T, o gateway.Options, change ...func(*gateway.Settings)) *world {
	t.Helper()
	cert, roots := testenv.Certificate(t)
	tokenPublic, tokenKey, _ := ed25519.GenerateKey(rand.Reader)
	_, renewalKey, _ := ed25519.GenerateKey(rand.Reader)
	w := &world{t: t, dir: t.TempDir(), hostKey: testenv.Signer(t), tokenKey: tokenKey, roots: roots, log: &logBuffer{}}
	sshListener, httpsListener := testenv.Listen(t), testenv.Listen(t)
	w.ssh, w.https = sshListener.Addr().String(), httpsListener.Addr().String()
	w.settings = gateway.Settings{
		HostKeys:    []ssh.Signer{w.hostKey},
		CA:          testenv.Signer(t),
		RenewalKey:  renewalKey,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		Tokens:      &auth.TokenVerifier{Keys: []any{tokenPublic}},
		Guests:      auth.GrantKeys{},
		Address:     w.ssh,
	}
	for _, f := range change {
		f(&w.settings)
	}
	var err error
	if o.Logger == nil {
		o.Logger = w.log.logger()
	}
	w.server, err = gateway.New(w.settings, o)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serve := func(f func(net.Listener) error, l net.Listener) {
		serving.Go(func() {
			if err := f(l); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("serve: %v", err)
			}
		})
	}
	serve(w.server.ServeSSH, sshListener)
	serve(w.server.ServeHTTPS, httpsListener)
	t.Cleanup(func() {
		w.server.Close()
		serving.Wait()
		if t.Failed() {
			t.Logf("gateway's log:\n%s", w.log.String())
		}
	})
	return w
}

// token mints a host token whose grant names the keys.
func (w *world) token(task string, issued time.Time, keys ...testenv.Key) string {
	w.t.Helper()
	var lines []string
	for _, k := range keys {
		lines = append(lines, k.Line)
	}
	raw, err := auth.MintToken(w.tokenKey, auth.Token{
		Task: auth.TaskID(task), ID: rand.Text(), IssuedAt: issued, Expires: time.Now().Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: lines},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// runningAgent is an agent that has registered.
type runningAgent struct {
	*agent.Agent
	done chan error
	stop context.CancelFunc
}

// newAgent is an agent that does not run yet.
func (w *world) newAgent(token string) *agent.Agent {
	return &agent.Agent{Gateway: w.https, Token: token, TLSConfig: &tls.Config{RootCAs: w.roots}, Dir: w.dir, Shell: "/bin/sh"}
}

// startAgent runs an agent and returns when the gateway has registered it. It
// ends with the test.
func (w *world) startAgent(token string, change ...func(*agent.Agent)) *runningAgent {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	registered := make(chan struct{}, 16)
	a := &runningAgent{done: make(chan error, 1), stop: cancel, Agent: w.newAgent(token)}
	a.Registered = func(agent.Registration) { registered <- struct{}{} }
	for _, f := range change {
		f(a.Agent)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.done <- a.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-registered:
	case err := <-a.done:
		w.t.Fatalf("the agent ended before it was registered: %v", err)
	case <-time.After(20 * time.Second):
		w.t.Fatal("the agent was not registered")
	}
	return a
}

// sshCommand is the real client on its way to a task.
func (w *world) sshCommand(task string, k testenv.Key, args ...string) *exec.Cmd {
	w.t.Helper()
	options := testenv.SSHOptions(w.t, w.dir, w.ssh, w.hostKey.PublicKey(), k)
	return exec.CommandContext(w.t.Context(), testenv.Need(w.t, "ssh"), append(append(options, task+"@127.0.0.1"), args...)...)
}

// dial is a client in this process, for what the real one cannot do.
func (w *world) dial(user string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", w.ssh, &ssh.ClientConfig{
		User: user, Auth: methods, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()), Timeout: 20 * time.Second,
	})
}

// mustDial is dial for a guest who is expected.
func (w *world) mustDial(user string, k testenv.Key) *ssh.Client {
	w.t.Helper()
	c, err := w.dial(user, ssh.PublicKeys(k.Signer))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// logBuffer collects the gateway's log.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// eventually waits for something that has no event of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still waiting: %s", what)
		}
	}
}

func TestGuestRunsCommand(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	out, err := w.sshCommand("task-1", k, "echo out; echo err >&2; exit 7").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("ssh: %v, want exit status 7", err)
	}
	if got := string(out); !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") {
		t.Errorf("output: %q", got)
	}
}

func TestUpperCaseTaskIsFolded(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	if out, err := w.sshCommand("Task-1", k, "true").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
