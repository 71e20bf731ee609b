//go:build linux

package auth

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// sshdServer runs a real sshd for each connection, as inetd would, so that it
// sees the address that the guest has.
type sshdServer struct {
	listener net.Listener
	config   string
	keys     string // path of the authorized_keys file, read anew for each connection
	user     string
	hostKey  ssh.PublicKey
	running  sync.WaitGroup
}

func startSSHD(t *testing.T) *sshdServer {
	t.Helper()
	sshd := testenv.Need(t, "sshd")
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // its privilege separation directory
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "host")
	s := &sshdServer{config: filepath.Join(dir, "config"), keys: filepath.Join(dir, "keys"), user: me.Username}
	s.hostKey = parsePublicKey(t, readFile(t, dir, "host.pub"))
	writeFile(t, 0o600, fmt.Appendf(nil, `HostKey %s/host
AuthorizedKeysFile %s
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
PasswordAuthentication no
GatewayPorts clientspecified
`, dir, s.keys), s.config)
	s.listener, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.running.Go(func() { s.serve(t, sshd) })
	t.Cleanup(func() { s.listener.Close(); s.running.Wait() })
	return s
}

func (s *sshdServer) serve(t *testing.T, sshd string) {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		socket, err := c.(*net.TCPConn).File()
		c.Close()
		if err != nil {
			t.Error(err)
			return
		}
		cmd := exec.Command(sshd, "-i", "-f", s.config)
		cmd.Stdin, cmd.Stdout = socket, socket
		err = cmd.Start()
		socket.Close()
		if err != nil {
			t.Error(err)
			return
		}
		s.running.Go(func() { cmd.Wait() }) // ends when the client closes the connection
	}
}

// dial signs in from a loopback address; refused says that sshd did not let the
// key in.
func (s *sshdServer) dial(t *testing.T, signer ssh.Signer, addr string) (client *ssh.Client, refused bool) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	nc, err := d.DialContext(t.Context(), "tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(time.Minute))
	conn, channels, requests, err := ssh.NewClientConn(nc, "sshd", &ssh.ClientConfig{
		User: s.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(s.hostKey),
	})
	if err != nil {
		nc.Close()
		if !strings.Contains(err.Error(), "unable to authenticate") {
			t.Fatalf("sshd: %v", err)
		}
		return nil, true
	}
	return ssh.NewClient(conn, channels, requests), false
}

// A probe asks sshd and the table for the same thing.
type probe struct {
	name  string
	sshd  func(c *ssh.Client) (bool, error)
	table func(p *ssh.Permissions) error
}

func sessionProbe(name, request string, payload []byte) probe {
	return probe{
		name: name,
		sshd: func(c *ssh.Client) (bool, error) {
			session, err := c.NewSession()
			if err != nil {
				return false, err
			}
			defer session.Close()
			return session.SendRequest(request, true, payload)
		},
		table: func(p *ssh.Permissions) error { return AllowRequest(p, Guest, "session", request, payload) },
	}
}

func directProbe(host string, port int) probe {
	payload := directPayload(host, uint32(port))
	return probe{
		name: fmt.Sprintf("direct-tcpip to %s", host),
		sshd: func(c *ssh.Client) (bool, error) {
			channel, requests, err := c.OpenChannel("direct-tcpip", payload)
			if open, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
				return false, unless(open.Reason == ssh.Prohibited, err)
			}
			if err != nil {
				return false, err
			}
			go ssh.DiscardRequests(requests)
			return true, channel.Close()
		},
		table: func(p *ssh.Permissions) error { return AllowChannel(p, Guest, "direct-tcpip", payload) },
	}
}

func unless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}

func listenProbe(host string, port int) probe {
	payload := forwardPayload(host, uint32(port))
	return probe{
		name: fmt.Sprintf("tcpip-forward on %q port %d", host, port),
		sshd: func(c *ssh.Client) (bool, error) {
			ok, _, err := c.SendRequest("tcpip-forward", true, payload)
			return ok, err
		},
		table: func(p *ssh.Permissions) error { return AllowGlobal(p, Guest, "tcpip-forward", payload) },
	}
}

// ptyPayload is a pty-req of 80 by 24 without modes (RFC 4254, section 6.2).
var ptyPayload = ssh.Marshal(struct {
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}{"xterm", 80, 24, 0, 0, "\x00"})

// freePort finds one that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Options mean here what they mean to sshd: who gets in from where, and what
// they may do then.
func TestOptionsAsUnderSSHD(t *testing.T) {
	s := startSSHD(t)
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	open, listen := target.Addr().(*net.TCPAddr).Port, freePort(t)
	probes := []probe{
		sessionProbe("pty", "pty-req", ptyPayload),
		sessionProbe("exec", "exec", text("true")),
		directProbe("127.0.0.1", open),
		directProbe("localhost", open),
		listenProbe("127.0.0.1", listen),
		listenProbe("127.0.0.2", 0),
		listenProbe("localhost", 0),
	}
	for _, options := range []string{
		"", "restrict", "restrict,pty", "pty,restrict", "no-pty", "NO-PTY", "no-port-forwarding", "restrict,port-forwarding",
		"restrict,no-restrict", "no-such-option", "pty,", ",pty", "user-rc,no-user-rc",
		`command="exit 3"`, `command="exit 3",restrict`, `command="a",command="b"`, `command="echo \"x\""`, `command=x`, `command="x`,
		`permitopen="127.0.0.1:{open}"`, `permitopen="localhost:{open}"`, `permitopen="*:{open}"`, `permitopen="localhost:*"`,
		`permitopen="LOCALHOST:*"`, `permitopen="127.0.0.*:*"`, `permitopen="db:1",permitopen="127.0.0.1:{open}"`, `permitopen="localhost"`,
		`permitopen="localhost:0"`, `restrict,permitopen="localhost:{open}"`,
		`permitlisten="{listen}"`, `permitlisten="127.0.0.1:{listen}"`, `permitlisten="127.0.0.1:*"`, `permitlisten="*"`,
		`permitlisten="127.0.0.*:*"`, `permitlisten="localhost:*"`, `permitlisten="*:*"`,
		`from="127.0.0.0/8"`, `from="127.0.0.5"`, `from="127.0.0.6"`, `from="127.0.0.*"`, `from="127.?.0.5"`, `from="*"`,
		`from="*,!127.0.0.5"`, `from="!127.0.0.5,*"`, `from="!127.0.0.6,*"`, `from="!127.0.0.6"`, `from="127.0.0.0/30"`, `from="127.0.0.5/8"`,
		`from="::1,127.0.0.4/31"`, `from=""`, `from="10.*",from="*"`, `FROM="127.0.0.5"`,
		`expiry-time="20200101"`, `expiry-time="20370101"`, `expiry-time="20370101Z",expiry-time="202001011200Z"`, `expiry-time="soon"`, `expiry-time="20379901"`,
	} {
		options = strings.NewReplacer("{open}", fmt.Sprint(open), "{listen}", fmt.Sprint(listen)).Replace(options)
		t.Run(options, func(t *testing.T) { s.compare(t, options, probes) })
	}
}

// The same for certificates, which ssh-keygen signs.
func TestCertificatesAsUnderSSHD(t *testing.T) {
	s := startSSHD(t)
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "ca")
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "stranger")
	keygen(t, dir, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "rsa")
	probes := []probe{
		sessionProbe("pty", "pty-req", ptyPayload),
		sessionProbe("exec", "exec", text("true")),
		sessionProbe("agent forwarding", "auth-agent-req@openssh.com", nil),
		listenProbe("127.0.0.1", 0),
	}
	me := "-n " + s.user
	for _, c := range []struct{ options, sign string }{
		{"cert-authority", me},
		{"", me},
		{"cert-authority", "-n nobody"},
		{"cert-authority", "-n nobody,*," + s.user},
		{"cert-authority", "-n *"},
		{`cert-authority,principals="alice"`, me},
		{`cert-authority,principals="alice"`, "-n bob,alice"},
		{`cert-authority,principals="alice,bob"`, "-n bob"},
		{`cert-authority,principals="alice,bob"`, "-n alice,bob"},
		{`cert-authority,principals="al*"`, "-n alice"},
		{`cert-authority,principals="alice"`, ""},
		{`principals="alice",cert-authority`, "-n alice"},
		{`principals="alice"`, "-n alice"},
		{`cert-authority,principals=""`, "-n alice"},
		{`cert-authority,principals="alice",principals="bob"`, "-n alice"},
		{"CERT-AUTHORITY", me},
		{"no-cert-authority", me},
		{"cert-authority", me + " -h"},
		{"cert-authority", me + " -V -2h:-1h"},
		{"cert-authority", me + " -V +1h:+2h"},
		{"cert-authority", me + " -V -1h:+1h"},
		{"cert-authority", me + " -O clear"},
		{"cert-authority", me + " -O no-pty"},
		{"cert-authority", me + " -O clear -O permit-pty"},
		{"cert-authority,no-pty", me},
		{"cert-authority,restrict,pty", me + " -O no-port-forwarding"},
		{"cert-authority,restrict", me},
		{"cert-authority", me + " -O no-agent-forwarding"},
		{"cert-authority", me + " -O source-address=127.0.0.5"},
		{"cert-authority", me + " -O source-address=127.0.0.0/8,::1"},
		{"cert-authority", me + " -O source-address=127.0.0.6"},
		{`cert-authority,from="127.0.0.6"`, me + " -O source-address=127.0.0.0/8"},
		{`cert-authority,from="127.0.0.5"`, me + " -O source-address=127.0.0.0/8"},
		{"cert-authority", me + " -O critical:new@example.com=x"},
		{"cert-authority", me + " -O extension:new@example.com=x"},
		{"cert-authority", me + " -O force-command=true"},
		{`cert-authority,command="true"`, me + " -O force-command=true"},
		{`cert-authority,command="false"`, me + " -O force-command=true"},
		{`cert-authority,command="false"`, me},
		{`cert-authority,expiry-time="20200101"`, me},
	} {
		t.Run(c.options+" "+c.sign, func(t *testing.T) {
			signer := newSigner(t)
			s.compareLine(t, c.options+" "+line(readPublicKey(t, dir, "ca"), "CA"), certSigner(t, dir, "ca", signer, c.sign), probes)
		})
	}
	t.Run("by a stranger", func(t *testing.T) {
		s.compareLine(t, "cert-authority "+line(readPublicKey(t, dir, "ca"), "CA"), certSigner(t, dir, "stranger", newSigner(t), me), probes)
	})
	t.Run("of a listed key", func(t *testing.T) {
		signer := newSigner(t)
		s.compareLine(t, line(signer.PublicKey(), "alice"), certSigner(t, dir, "ca", signer, me), probes)
	})
	t.Run("the authority as a key", func(t *testing.T) {
		ca, err := ssh.ParsePrivateKey(readFile(t, dir, "ca"))
		if err != nil {
			t.Fatal(err)
		}
		s.compareLine(t, "cert-authority "+line(ca.PublicKey(), "CA"), ca, probes)
	})
	for _, hash := range []string{"rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"} {
		t.Run("signed with "+hash, func(t *testing.T) {
			s.compareLine(t, "cert-authority "+line(readPublicKey(t, dir, "rsa"), "CA"), certSigner(t, dir, "rsa", newSigner(t), me+" -t "+hash), probes)
		})
	}
}

func (s *sshdServer) compare(t *testing.T, options string, probes []probe) {
	signer := newSigner(t)
	s.compareLine(t, options+" "+line(signer.PublicKey(), "alice"), signer, probes)
}

// compareLine asks for the user as the task, as sshd compares principals with
// the user's name.
func (s *sshdServer) compareLine(t *testing.T, text string, signer ssh.Signer, probes []probe) {
	const addr = "127.0.0.5"
	data := []byte(text + "\n")
	if err := os.WriteFile(s.keys, bytes.TrimLeft(data, " "), 0o600); err != nil {
		t.Fatal(err)
	}
	// A line that sshd skips is an error here: nobody gets in by either.
	var p *ssh.Permissions
	keys, err := ParseAuthorizedKeys("keys", data)
	if err == nil {
		p, err = keys.Authorize(t.Context(), Identity{Key: signer.PublicKey(), Remote: from(addr)}, Task{ID: TaskID(s.user)})
	}
	client, refused := s.dial(t, signer, addr)
	if !refused {
		defer client.Close()
	}
	if refused != (err != nil) {
		t.Fatalf("refused by sshd: %v, here: %v", refused, err)
	}
	if refused {
		return
	}
	for _, probe := range probes {
		bySSHD, err := probe.sshd(client)
		if err != nil {
			t.Errorf("%s: sshd: %v", probe.name, err)
			continue
		}
		if err := probe.table(p); bySSHD != (err == nil) {
			t.Errorf("%s: allowed by sshd: %v, here: %v", probe.name, bySSHD, err)
		}
	}
}
