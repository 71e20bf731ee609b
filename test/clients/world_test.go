package clients

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// task is the name of the one task.
const task = "task-1"

// world is a gateway and an agent that all cells share.
type world struct {
	dir     string
	home    string // the task's directory
	gateway string // SSH address
	nosy    string // SSH address of a gateway that asks for signs of life all the time
	hostKey ssh.PublicKey
	// agentKey is the host key of the agent, for guests who come end to end.
	agentKey ssh.PublicKey
	// keys are private key files by kind, which open the task. Their public
	// halves have .pub appended.
	keys map[string]string
	// digests is what forwardings lead to: a TCP and a unix address.
	digests digests
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{dir: dir, home: filepath.Join(dir, "work"), keys: newKeys(t, dir), digests: newDigests(t)}
	mustDo(t, os.Mkdir(w.home, 0o755))
	w.gateway, w.hostKey, w.agentKey = w.startPair(t, "quiet")
	w.nosy, _, _ = w.startPair(t, "nosy", "limits:", "  keepalive_interval: 500ms", "  keepalive_count: 100")
	return w
}

// newKeys makes a key of each kind.
func newKeys(t *testing.T, dir string) map[string]string {
	t.Helper()
	keys := map[string]string{}
	for kind, bits := range map[string]string{ed25519: "256", ecdsa: "256", rsa: "3072"} {
		file := filepath.Join(dir, "id_"+strings.ToLower(kind))
		mustRun(t, exec.CommandContext(t.Context(), testenv.Need(t, "ssh-keygen"),
			"-q", "-t", strings.ToLower(kind), "-b", bits, "-N", "", "-C", kind, "-f", file))
		keys[kind] = file
	}
	return keys
}

// startPair runs a gateway with the given lines added to its configuration, and
// an agent behind it.
func (w *world) startPair(t *testing.T, name string, more ...string) (address string, hostKey, agentKey ssh.PublicKey) {
	t.Helper()
	dir := filepath.Join(w.dir, name)
	mustDo(t, os.Mkdir(dir, 0o700))
	cert, _ := testenv.Certificate(t)
	certFile, keyFile := testenv.WriteCertificate(t, dir, cert)
	config := filepath.Join(dir, "gateway.yaml")
	address, https, private := testenv.FreeAddress(t), testenv.FreeAddress(t), testenv.FreeAddress(t)
	lines := append([]string{
		"state_dir: " + filepath.Join(dir, "state"),
		"ssh:", "  listen: " + address, "  address: " + address,
		"https:", "  listen: " + https, "  certificate: " + certFile, "  key: " + keyFile,
		"private:", "  listen: " + private,
	}, more...)
	mustDo(t, os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	gateway := testenv.StartProcess(t, nil, stagedoor("stagedoor"), "gateway", "--config", config)
	gateway.WaitFor("gateway ready")

	mint := exec.CommandContext(t.Context(), stagedoor("stagedoor"), "token", "--config", config, "--task", task)
	for _, file := range w.keys {
		mint.Args = append(mint.Args, "--authorized-keys", file+".pub")
	}
	agent := testenv.StartProcess(t, []string{
		"STAGEDOOR_TOKEN=" + strings.TrimSpace(mustRun(t, mint)), "STAGEDOOR_GATEWAY=" + https, "SSL_CERT_FILE=" + certFile, "SHELL=/bin/bash",
		"HOME=" + dir, // and no profile of whoever runs the tests
	}, stagedoor("stagedoor-agent"), "connect", "--dir", w.home, "--state-dir", filepath.Join(dir, "agent"))
	agent.WaitFor("ssh -p ")
	return address, publicKey(t, filepath.Join(dir, "state", "ssh_host_ed25519_key")), publicKey(t, filepath.Join(dir, "agent", "host_key"))
}

// publicKey is the public half of a private key file.
func publicKey(t *testing.T, file string) ssh.PublicKey {
	t.Helper()
	data, err := os.ReadFile(file)
	mustDo(t, err)
	signer, err := ssh.ParsePrivateKey(data)
	mustDo(t, err)
	return signer.PublicKey()
}

// guest is who a cell is about: somebody with a home directory, a key, and a
// directory of the same name on the host.
type guest struct {
	w       *world
	home    string        // HOME of the client
	remote  string        // directory on the host, seen from here
	kind    string        // of the key
	address string        // of the gateway, or of a relay before it
	hostKey ssh.PublicKey // what the guest takes for the gateway's
	files   int           // that were made so far
}

func (w *world) newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{w: w, home: t.TempDir(), kind: ed25519, remote: mkdirTemp(t, w.home)}
	mustDo(t, os.Mkdir(filepath.Join(g.home, ".ssh"), 0o700))
	g.know(t, w.gateway, w.hostKey)
	return g
}

// mkdirTemp makes a directory below dir, with a name that needs no quoting.
func mkdirTemp(t *testing.T, dir string) string {
	t.Helper()
	made, err := os.MkdirTemp(dir, "guest")
	mustDo(t, err)
	mustDo(t, os.Chmod(made, 0o755))
	return made
}

// know makes the guest go to address, and expect key there. The guest knows the
// agent's key, too.
func (g *guest) know(t *testing.T, address string, key ssh.PublicKey) {
	t.Helper()
	g.address, g.hostKey = address, key
	gateway, agent := ssh.MarshalAuthorizedKey(key), ssh.MarshalAuthorizedKey(g.w.agentKey)
	lines := fmt.Sprintf("[%s]:%s %s%s %s", g.host(), g.port(), gateway, task, agent)
	lines += fmt.Sprintf("%s %s", g.host(), gateway) // Dropbear leaves the port out
	mustDo(t, os.WriteFile(g.knownHosts(), []byte(lines), 0o600))
}

// relayed puts a relay between the guest and a gateway.
func (g *guest) relayed(t *testing.T, gateway string) *testenv.Relay {
	t.Helper()
	r := testenv.NewRelay(t, gateway)
	key := g.hostKey
	if gateway == g.w.nosy {
		key = publicKey(t, filepath.Join(g.w.dir, "nosy", "state", "ssh_host_ed25519_key"))
	}
	g.know(t, r.Addr(), key)
	return r
}

func (g *guest) host() string       { host, _, _ := net.SplitHostPort(g.address); return host }
func (g *guest) port() string       { _, port, _ := net.SplitHostPort(g.address); return port }
func (g *guest) target() string     { return task + "@" + g.host() }
func (g *guest) key() string        { return g.w.keys[g.kind] }
func (g *guest) knownHosts() string { return filepath.Join(g.home, ".ssh", "known_hosts") }

// remotePath is a path below the guest's directory as the host knows it, relative
// to where sessions start.
func (g *guest) remotePath(name string) string {
	return filepath.Join(filepath.Base(g.remote), name)
}

// command is a program that runs with the guest's home directory, and nothing
// of the settings, the agent and the terminal of whoever runs the tests: what
// would ask there fails instead.
func (g *guest) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"HOME=" + g.home, "PATH=" + os.Getenv("PATH"), "TERM=xterm", "LANG=C.UTF-8", "USER=guest", "LOGNAME=guest"}
	cmd.Dir = g.home
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // a grandchild that holds its pipes
	return cmd
}

// digests are two servers that read to the end and answer with what they read: a
// forwarding to one is right when both directions and the half-close are.
type digests struct{ tcp, unix string }

func newDigests(t *testing.T) digests {
	t.Helper()
	l := testenv.Listen(t)
	dir, err := os.MkdirTemp("", "digest") // t.TempDir is too long for a socket
	mustDo(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	u, err := net.Listen("unix", filepath.Join(dir, "s"))
	mustDo(t, err)
	t.Cleanup(func() { u.Close() })
	go serveDigests(l)
	go serveDigests(u)
	return digests{tcp: l.Addr().String(), unix: u.Addr().String()}
}

func serveDigests(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go answerDigest(c)
	}
}

func answerDigest(c net.Conn) {
	defer c.Close()
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err == nil {
		fmt.Fprintf(c, "%d %s\n", n, hex.EncodeToString(h.Sum(nil)))
	}
}
