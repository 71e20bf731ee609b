package hostile

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

const patience = testenv.Patience

// binaries is where the gateway is: without the race detector, whose memory and
// time would hide what is measured here.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := testenv.Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	return m.Run()
}

// world is a gateway process, and two people with a task each: alice has task-a,
// and bob, who is mostly the innocent one, has task-b.
type world struct {
	t                   *testing.T
	dir                 string
	ssh, https, private string // addresses
	hostKey             ssh.PublicKey
	roots               *x509.CertPool
	tokenKey            ed25519.PrivateKey
	alice, bob          testenv.Key
	gateway             *testenv.Process
}

// newWorld starts a gateway with the given lines added to its configuration.
func newWorld(t *testing.T, more ...string) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, dir: dir, ssh: testenv.FreeAddress(t), https: testenv.FreeAddress(t), private: testenv.FreeAddress(t),
		alice: testenv.NewKey(t, dir, "alice"), bob: testenv.NewKey(t, dir, "bob")}
	cert, roots := testenv.Certificate(t)
	w.roots = roots
	certFile, keyFile := testenv.WriteCertificate(t, dir, cert)
	lines := append([]string{
		"state_dir: " + filepath.Join(dir, "state"),
		"ssh:", "  listen: " + w.ssh, "  address: " + w.ssh,
		"https:", "  listen: " + w.https, "  certificate: " + certFile, "  key: " + keyFile,
		"private:", "  listen: " + w.private,
		"drain:", "  deadline: 0s",
	}, more...)
	config := filepath.Join(dir, "gateway.yaml")
	mustDo(t, os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	w.gateway = testenv.StartProcess(t, nil, filepath.Join(binaries, "stagedoor"), "gateway", "--config", config)
	w.gateway.WaitFor("gateway ready")
	signer, err := auth.LoadSigner(filepath.Join(dir, "state", "ssh_host_ed25519_key"))
	mustDo(t, err)
	w.hostKey = signer.PublicKey()
	w.tokenKey, _, err = auth.LoadOrCreateEd25519(filepath.Join(dir, "state", "token_key"))
	mustDo(t, err)
	return w
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// token mints a host token whose grant names the key.
func (w *world) token(task string, k testenv.Key) string {
	w.t.Helper()
	raw, err := auth.MintToken(w.tokenKey, auth.Token{
		Task: auth.TaskID(task), ID: rand.Text(), IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: []string{k.Line}},
	})
	mustDo(w.t, err)
	return raw
}

// host is the agent's side of a tunnel without an agent: it echoes sessions.
type host struct {
	hostKey  ssh.Signer
	listener *tunnel.Listener
}

// startHost registers a host that serves each channel with serve, in a goroutine.
// It ends with the test.
func (w *world) startHost(task string, k testenv.Key, serve func(ssh.NewChannel)) *host {
	w.t.Helper()
	h := &host{hostKey: testenv.Signer(w.t)}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	token := w.token(task, k)
	d := &tunnel.Dialer{Gateway: w.https, Key: key, TLSConfig: &tls.Config{RootCAs: w.roots}, Hello: func() tunnel.Hello {
		return tunnel.Hello{Task: task, Token: token, HostKey: h.hostKey.PublicKey().Marshal()}
	}}
	var err error
	h.listener, err = d.Dial(w.t.Context())
	mustDo(w.t, err)
	var serving sync.WaitGroup
	serving.Go(func() { h.accept(serve) })
	w.t.Cleanup(func() {
		h.listener.CloseNow()
		serving.Wait()
	})
	return h
}

func (h *host) accept(serve func(ssh.NewChannel)) {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		c, err := h.listener.Accept()
		if err != nil {
			return
		}
		streams.Go(func() {
			defer c.Close()
			h.serve(c, serve)
		})
	}
}

func (h *host) serve(c net.Conn, serve func(ssh.NewChannel)) {
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(h.hostKey)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		go serve(nc)
	}
}

// echo grants every request and sends back what comes.
func echo(nc ssh.NewChannel) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	go func() {
		for r := range reqs {
			r.Reply(true, nil)
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := ch.Read(buf)
		if n > 0 {
			_, err = ch.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// startAgent runs the real agent, and returns when it is registered.
func (w *world) startAgent(task string, k testenv.Key) *testenv.Process {
	w.t.Helper()
	ca := filepath.Join(w.dir, "cert.pem")
	p := testenv.StartProcess(w.t, []string{"STAGEDOOR_TOKEN=" + w.token(task, k), "STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + ca, "SHELL=/bin/sh"},
		filepath.Join(binaries, "stagedoor-agent"), "connect", "--dir", w.dir)
	p.WaitFor("ssh -p ")
	return p
}

// config is that of a client in this process.
func (w *world) config(user string, methods ...ssh.AuthMethod) *ssh.ClientConfig {
	return &ssh.ClientConfig{User: user, Auth: methods, HostKeyCallback: ssh.FixedHostKey(w.hostKey), Timeout: patience}
}

// dial signs a guest in.
func (w *world) dial(user string, k testenv.Key) *ssh.Client {
	w.t.Helper()
	c, err := ssh.Dial("tcp", w.ssh, w.config(user, ssh.PublicKeys(k.Signer)))
	mustDo(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// command is the real client on its way to a task.
func (w *world) command(user string, k testenv.Key, args ...string) *exec.Cmd {
	w.t.Helper()
	options := testenv.SSHOptions(w.t, w.dir, w.ssh, w.hostKey, k)
	return exec.CommandContext(w.t.Context(), testenv.Need(w.t, "ssh"), append(append(options, user+"@127.0.0.1"), args...)...)
}

// login has the real client sign in and run a command, and says how long it took.
func (w *world) login(task string, k testenv.Key) time.Duration {
	w.t.Helper()
	start := time.Now()
	if out, err := w.command(task, k, "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		w.t.Errorf("a real login: %v: %s", err, out)
	}
	return time.Since(start)
}

// echoes reports whether a session of an echoing host answers.
func echoes(c *ssh.Client) error {
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		return err
	}
	defer ch.Close()
	go ssh.DiscardRequests(reqs)
	if _, err := ch.Write([]byte("hello\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(ch).ReadString('\n')
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("%q came back", line)
	}
	return err
}

// eventually waits for something that has no event of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// metric is the value of one of the gateway's metrics, -1 if there is none.
func (w *world) metric(name string) float64 {
	resp, err := http.Get("http://" + w.private + "/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, _ := strconv.ParseFloat(value, 64)
			return v
		}
	}
	return -1
}

// resident is the memory that the gateway has now, in bytes, and the most that it
// ever had.
func (w *world) resident() (now, peak int64) {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.gateway.Cmd.Process.Pid))
	if err != nil {
		testenv.Skip(w.t, "needs /proc")
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &now)
		fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	return now << 10, peak << 10
}

// descriptors is how many files and connections the gateway has open.
func (w *world) descriptors() int {
	w.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.gateway.Cmd.Process.Pid))
	if err != nil {
		testenv.Skip(w.t, "needs /proc")
	}
	return len(all)
}

// intact reports what must hold after whatever was done to the gateway: it runs,
// nothing panicked, and the innocent guest gets in.
func (w *world) intact() {
	w.t.Helper()
	select {
	case <-w.gateway.Done:
		w.t.Fatalf("the gateway ended:\n%s", w.gateway.Output.String())
	default:
	}
	if n := w.metric("stagedoor_panics_total"); n != 0 {
		w.t.Errorf("%v panics", n)
	}
	c, err := ssh.Dial("tcp", w.ssh, w.config("task-b", ssh.PublicKeys(w.bob.Signer)))
	if err != nil {
		w.t.Errorf("the innocent guest: %v", err)
		return
	}
	defer c.Close()
	if err := echoes(c); err != nil {
		w.t.Errorf("the innocent guest: %v", err)
	}
}

// dialFrom connects from an address of the loopback network. Linux lets each of
// 127.0.0.0/8 be somebody else.
func dialFrom(ctx context.Context, source, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	return d.DialContext(ctx, "tcp", address)
}
