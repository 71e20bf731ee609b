package splice

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A lab is a real sshd, and a gateway before it. Each connection to sshd's
// address gets a process of its own, as inetd would start it.
type lab struct {
	t    *testing.T
	dir  string
	user string
	key  ssh.Signer

	logLevel string // of clients

	sshd    net.Listener
	gateway net.Listener

	mu    sync.Mutex // guards all below
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// both are the two ways to the same sshd, which must look the same.
var both = []string{"direct", "spliced"}

func newLab(t *testing.T) *lab {
	t.Helper()
	testenv.Need(t, "ssh")
	testenv.Need(t, "sshd")
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if u.Uid == "0" { // where sshd confines its unprivileged half
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "splice") // short: sockets are made in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{t: t, dir: dir, user: u.Username, logLevel: "ERROR", conns: make(map[net.Conn]struct{})}
	l.configure()
	l.sshd = l.listen(l.serveSSHD)
	l.gateway = l.listen(l.serveGateway)
	t.Cleanup(l.close)
	return l
}

func (l *lab) configure() {
	l.t.Helper()
	l.key = l.writeKey("guest_key")
	l.writeKey("host_key")
	l.write("authorized_keys", string(ssh.MarshalAuthorizedKey(l.key.PublicKey())))
	l.write("sshd_config", fmt.Sprintf(`HostKey %[1]s/host_key
AuthorizedKeysFile %[1]s/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PrintMotd no
PrintLastLog no
MaxSessions 500
AcceptEnv STAGE_*
SetEnv HOME=%[1]s
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
PermitTunnel no
ClientAliveInterval 1
ClientAliveCountMax 60
Subsystem sftp internal-sftp
`, l.dir))
}

func (l *lab) write(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func (l *lab) writeKey(name string) ssh.Signer {
	l.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(name, string(pem.EncodeToMemory(block)))
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// listen serves each connection to a new loopback address.
func (l *lab) listen(serve func(net.Conn)) net.Listener {
	l.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.track(c)
			l.wg.Go(func() {
				defer l.untrack(c)
				serve(c)
			})
		}
	})
	return ln
}

func (l *lab) track(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
}

func (l *lab) untrack(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

func (l *lab) close() {
	l.sshd.Close()
	l.gateway.Close()
	l.mu.Lock()
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// serveSSHD runs an sshd on c.
func (l *lab) serveSSHD(c net.Conn) {
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return
	}
	defer f.Close()
	// -E: what sshd says would otherwise end up in the connection.
	cmd := exec.Command("/usr/sbin/sshd", "-i", "-f", filepath.Join(l.dir, "sshd_config"), "-E", filepath.Join(l.dir, "sshd.log"))
	cmd.Stdin, cmd.Stdout = f, f
	if err := cmd.Start(); err != nil {
		l.t.Errorf("start sshd: %v", err)
		return
	}
	c.Close() // sshd has its copy
	cmd.Wait()
}

// serveGateway signs anybody in and joins them to sshd.
func (l *lab) serveGateway(c net.Conn) {
	guest, err := serve(c)
	if err != nil {
		return
	}
	JoinLater(guest, l.dialSSHD, nil)
}

func (l *lab) dialSSHD(context.Context) (Conn, error) {
	nc, err := net.Dial("tcp", l.sshd.Addr().String())
	if err != nil {
		return Conn{}, err
	}
	conn, chans, reqs, err := ssh.NewClientConn(nc, "", &ssh.ClientConfig{
		User:            l.user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(l.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		Config:          cryptoConfig,
	})
	if err != nil {
		l.t.Errorf("sign in to sshd: %v", err)
	}
	return Conn{Conn: conn, Channels: chans, Requests: reqs}, err
}

// args returns the arguments of ssh (or, with -P for the port, of scp and sftp)
// for one of both ways.
func (l *lab) options(way string) []string {
	addr := l.sshd.Addr()
	if way == "spliced" {
		addr = l.gateway.Addr()
	}
	_, port, _ := net.SplitHostPort(addr.String())
	return []string{"-F", "none", "-o", "LogLevel=" + l.logLevel, "-o", "Port=" + port, "-o", "User=" + l.user,
		"-o", "IdentityFile=" + filepath.Join(l.dir, "guest_key"), "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes",
		// What OpenSSH prefers costs it, on the direct way, more than all the rest.
		"-o", "KexAlgorithms=curve25519-sha256"}
}

const hostName = "127.0.0.1"

func (l *lab) command(name, way string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, append(l.options(way), args...)...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	return cmd
}

// ssh returns a command that runs something on the host. What comes before
// hostName in args are options.
func (l *lab) ssh(way string, args ...string) *exec.Cmd { return l.command("ssh", way, args...) }

// An outcome is all that is seen of a command.
type outcome struct {
	status         int
	stdout, stderr string
}

func (o outcome) String() string {
	short := func(s string) string {
		if len(s) > 300 {
			return fmt.Sprintf("%q... (%d bytes)", s[:300], len(s))
		}
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("status %d, stdout %s, stderr %s", o.status, short(o.stdout), short(o.stderr))
}

// run runs cmd to its end. A nil stdin is /dev/null.
func run(t testing.TB, cmd *exec.Cmd, stdin io.Reader) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	if err := cmd.Start(); err != nil {
		t.Errorf("start %s: %v", cmd.Path, err)
		return outcome{status: -1}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok && !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("run %s: %v", cmd.Path, err)
	}
	if ctx.Err() != nil {
		t.Errorf("%v hung; so far %q, %q", cmd.Args[len(cmd.Args)-1], out.String(), errs.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}
