package e2e

import (
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// An impostor is a gateway that has turned bad. It has the gateway's host key, lets
// everybody in, and answers a jump to a task itself, in the place of the agent.
type impostor struct {
	gateway ssh.Signer
	task    ssh.Signer     // what it shows for the task
	caught  testenv.Output // what guests did there
	address string
}

func newImpostor(t *testing.T, address string, gateway, task ssh.Signer) *impostor {
	t.Helper()
	m := &impostor{gateway: gateway, task: task}
	m.address = serve(t, address, func(c halfConn) { m.server(c, m.gateway, m.jump) })
	return m
}

// server is an SSH server that hands what guests open to serve.
func (m *impostor) server(c net.Conn, hostKey ssh.Signer, serve func(ssh.NewChannel)) {
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(hostKey)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		serve(nc)
	}
}

// jump is the guest's way to the task, as it thinks.
func (m *impostor) jump(nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	outside, inside := net.Pipe()
	go func() {
		defer inside.Close()
		m.server(inside, m.task, m.session)
	}()
	go func() {
		defer outside.Close()
		io.Copy(outside, ch)
	}()
	defer ch.Close()
	io.Copy(ch, outside)
}

// session is reached by a guest who believes all of it.
func (m *impostor) session(nc ssh.NewChannel) {
	io.WriteString(&m.caught, nc.ChannelType())
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range requests {
		r.Reply(true, nil)
		if r.Type == "exec" {
			io.WriteString(ch, "caught\n")
			ch.SendRequest("exit-status", false, make([]byte, 4))
			return
		}
	}
}

// TestSwappedHostKey: whatever a bad gateway shows in the place of the task's host
// key, the stock client says no, before it has signed in.
func TestSwappedHostKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, guest := testenv.NewKey(t, dir, "ca"), testenv.NewKey(t, dir, "guest")
	gateway, host, other := testenv.Signer(t), testenv.Signer(t), testenv.Signer(t)
	authority := "@cert-authority task-* " + ca.Line
	now := time.Now()
	certificate := func(ca ssh.Signer, certType uint32, name string, until time.Time) ssh.Signer {
		c := &ssh.Certificate{Key: other.PublicKey(), CertType: certType, ValidPrincipals: []string{name},
			ValidAfter: uint64(now.Add(-2 * time.Hour).Unix()), ValidBefore: uint64(until.Unix())}
		mustDo(t, c.SignCert(rand.Reader, ca))
		s, err := ssh.NewCertSigner(c, other)
		mustDo(t, err)
		return s
	}
	for _, test := range []struct {
		name, known string
		shows       ssh.Signer
		believed    bool
	}{
		{"the host's own key", knownHost("task-1", host.PublicKey()), host, true}, // so this test can tell
		{"another key", knownHost("task-1", host.PublicKey()), other, false},
		{"the gateway's key", knownHost("task-1", host.PublicKey()), gateway, false},
		{"good certificate", authority, certificate(ca.Signer, ssh.HostCert, "task-1", now.Add(time.Hour)), true},
		{"key without certificate", authority, other, false},
		{"expired certificate", authority, certificate(ca.Signer, ssh.HostCert, "task-1", now.Add(-time.Hour)), false},
		{"certificate for another task", authority, certificate(ca.Signer, ssh.HostCert, "task-2", now.Add(time.Hour)), false},
		{"certificate by another CA", authority, certificate(gateway, ssh.HostCert, "task-1", now.Add(time.Hour)), false},
		{"certificate of a user", authority, certificate(ca.Signer, ssh.UserCert, "task-1", now.Add(time.Hour)), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newImpostor(t, "127.0.0.1:0", gateway, test.shows)
			l := newLaptop(t, guest, []string{knownHost(m.address, gateway.PublicKey()), test.known})
			cmd := l.typed("ssh -J " + m.address + " task-1 true")
			if test.believed {
				if got := mustRun(t, cmd); got != "caught\n" {
					t.Errorf("output %q", got)
				}
				return
			}
			out := fails(t, cmd)
			if seen := m.caught.String(); seen != "" {
				t.Errorf("the guest came in and opened %s: %s", seen, out)
			}
		})
	}
}

// TestPastedCommandAtImpostor: the command of the job's log refuses another host
// key, where the gateway itself is what it was, by its own key.
func TestPastedCommandAtImpostor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	command := endToEndCommand(t, w.startAgent(nil))
	mustDo(t, w.gateway.Cmd.Process.Kill())
	w.gateway.Wait()
	data, err := os.ReadFile(filepath.Join(w.dir, "state", "ssh_host_ed25519_key"))
	mustDo(t, err)
	key, err := ssh.ParsePrivateKey(data)
	mustDo(t, err)
	m := newImpostor(t, w.ssh, key, testenv.Signer(t))
	l := newLaptop(t, w.key, []string{knownHost(w.ssh, w.hostKey)})
	out := fails(t, l.typed(command+" true"))
	if !strings.Contains(out, "Host key verification failed") {
		t.Errorf("other words: %s", out)
	}
	if seen := m.caught.String(); seen != "" {
		t.Errorf("the guest came in and opened %s", seen)
	}
}

// TestHostCertificate: a CI that signs host keys spares its users every question,
// by one line in their known_hosts.
func TestHostCertificate(t *testing.T) {
	t.Parallel()
	w, gateway := jumpWorld(t)
	ca, hostKey := keygen(t, w.dir, "ca", "-t", "ed25519"), keygen(t, w.dir, "host", "-t", "ed25519")
	certify(t, ca, hostKey, "-h", "-n", "task-1,task-1.localhost", "-V", "+1h")
	w.startAgent(nil, "--host-key", hostKey.File, "--host-certificate", hostKey.File+"-cert.pub")
	l := newLaptop(t, w.key, []string{knownHost(gateway, w.hostKey), "@cert-authority task-* " + ca.Line})
	for _, name := range []string{"task-1", "task-1.localhost"} {
		if got := mustRun(t, l.typed("ssh -J "+gateway+" "+name+" echo in")); got != "in\n" {
			t.Errorf("%s: output %q", name, got)
		}
	}
}
