//go:build linux

package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// fakeStream is a connection with what a tunnel says of it.
type fakeStream struct {
	net.Conn
	header  tunnel.StreamHeader
	welcome tunnel.Welcome
}

func (s fakeStream) Header() tunnel.StreamHeader { return s.header }
func (s fakeStream) Welcome() tunnel.Welcome     { return s.welcome }

// fakeTunnel is a listener whose connections come with that.
type fakeTunnel struct {
	net.Listener
	header  tunnel.StreamHeader
	welcome tunnel.Welcome
}

func (l fakeTunnel) Welcome() tunnel.Welcome { return l.welcome }
func (l fakeTunnel) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fakeStream{c, l.header, l.welcome}, nil
}

// vouched is what a gateway says of a spliced guest.
type vouched struct {
	ca      ssh.Signer
	task    auth.TaskID
	perms   *ssh.Permissions
	remote  string
	issued  time.Time // zero: now
	gateway time.Time // the gateway's clock; zero: now
}

// serveTunnel makes the host serve another listener, as a tunnel, and returns its address.
func (h *testHost) serveTunnel(v vouched) string {
	h.t.Helper()
	now := time.Now()
	if v.gateway.IsZero() {
		v.gateway = now
	}
	if v.issued.IsZero() {
		v.issued = v.gateway
	}
	id := auth.Identity{Name: "bob", Method: "publickey", Remote: netip.MustParseAddrPort(v.remote)}
	signer, _ := newSigner(h.t)
	cert, err := auth.IssueGuestCertificate(signer, id, v.task, v.perms, v.issued, 5*time.Minute)
	must(h.t, err)
	ca := signer.PublicKey()
	if v.ca != nil {
		ca = v.ca.PublicKey() // the gateway's Welcome names another
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(h.t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		h.Serve(fakeTunnel{
			Listener: l,
			header:   tunnel.StreamHeader{Mode: tunnel.ModeSpliced, Remote: v.remote, Certificate: cert.Marshal()},
			welcome:  tunnel.Welcome{CA: ca.Marshal(), Now: v.gateway},
		})
	}()
	h.t.Cleanup(func() { l.Close(); <-served })
	return l.Addr().String()
}

func dialWith(t *testing.T, h *testHost, addr string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	t.Helper()
	c, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
		User: "whoever", Auth: methods, HostKeyCallback: ssh.FixedHostKey(h.HostKey.PublicKey()), Timeout: patience,
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func TestSplicedGuest(t *testing.T) {
	h := newTestHost(t, nil)
	addr := h.serveTunnel(vouched{task: "task-1", perms: auth.FullPermissions(), remote: "192.0.2.7:4711"})
	c, err := dialWith(t, h, addr)
	must(t, err)
	out := output(t, c, "echo $SSH_CONNECTION, $SSH_CLIENT, $STAGEDOOR_TASK")
	if want := "192.0.2.7 4711 127.0.0.1 22, 192.0.2.7 4711 22, task-1\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	<-h.events.more
	info := h.events.ended[0]
	if info.Identity != "bob" || info.EndToEnd || info.Remote != "192.0.2.7:4711" || info.Kind != KindExec || info.ExitStatus != 0 || info.Ended.Before(info.Started) {
		t.Errorf("%+v", info)
	}
}

func output(t *testing.T, c *ssh.Client, command string) string {
	t.Helper()
	s, err := c.NewSession()
	must(t, err)
	defer s.Close()
	out, err := s.Output(command)
	must(t, err)
	return string(out)
}

func TestSplicedGuestIsJudgedByTheGatewaysClock(t *testing.T) {
	h := newTestHost(t, nil)
	later := time.Now().Add(1000 * time.Hour)
	addr := h.serveTunnel(vouched{task: "task-1", perms: auth.FullPermissions(), remote: "192.0.2.7:1", gateway: later})
	_, err := dialWith(t, h, addr)
	must(t, err)
}

func TestSplicedGuestIsRefused(t *testing.T) {
	other, _ := newSigner(t)
	narrow := auth.FullPermissions()
	narrow.CriticalOptions = map[string]string{auth.SourceAddress: "198.51.100.0/24"}
	for _, test := range []struct {
		name   string
		v      vouched
		change func(*Server)
	}{
		{"other task", vouched{task: "task-2", perms: auth.FullPermissions()}, nil},
		{"other CA", vouched{task: "task-1", perms: auth.FullPermissions(), ca: other}, nil},
		{"expired", vouched{task: "task-1", perms: auth.FullPermissions(), issued: time.Now().Add(-time.Hour)}, nil},
		{"other address", vouched{task: "task-1", perms: narrow}, nil},
		{"end to end only", vouched{task: "task-1", perms: auth.FullPermissions()}, func(s *Server) { s.EndToEndOnly = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHost(t, test.change)
			test.v.remote = "192.0.2.7:4711"
			addr := h.serveTunnel(test.v)
			if _, err := dialWith(t, h, addr, ssh.PublicKeys(h.guest)); err == nil { // nor does the grant's key help
				t.Fatal("signed in")
			}
		})
	}
}

// A certificate is good on spliced streams only, and none at all is good on the others.
func TestEndToEndGuestIsRefused(t *testing.T) {
	h := newTestHost(t, nil)
	stranger, _ := newSigner(t)
	for name, methods := range map[string][]ssh.AuthMethod{
		"nothing":      nil,
		"stranger":     {ssh.PublicKeys(stranger)},
		"password":     {ssh.Password("")},
		"ca-signed":    {ssh.PublicKeys(certified(t, stranger))},
		"stolen offer": {ssh.PublicKeys(offered{h.guest.PublicKey(), stranger})},
	} {
		if _, err := dialWith(t, h, h.addr, methods...); err == nil {
			t.Errorf("%s: signed in", name)
		}
	}
}

// certified returns a signer with a certificate for the task by a CA that nobody named.
func certified(t *testing.T, ca ssh.Signer) ssh.Signer {
	t.Helper()
	key, _ := newSigner(t)
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"task-1"}, ValidBefore: ssh.CertTimeInfinity}
	must(t, cert.SignCert(zeroes{}, ca))
	signer, err := ssh.NewCertSigner(cert, key)
	must(t, err)
	return signer
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// offered shows one key and signs with another.
type offered struct {
	key    ssh.PublicKey
	signer ssh.Signer
}

func (o offered) PublicKey() ssh.PublicKey { return o.key }
func (o offered) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return o.signer.Sign(rand, data)
}

// Who holds only the public key of another must not get that one's permissions by offering it first.
func TestOnlyTheVerifiedKeyCounts(t *testing.T) {
	modest, _ := newSigner(t)
	h := newTestHost(t, func(s *Server) {
		s.Grant.AuthorizedKeys = append(s.Grant.AuthorizedKeys, `command="echo forced $SSH_ORIGINAL_COMMAND" `+line(modest)+" carol")
	})
	queried := offered{h.guest.PublicKey(), refuser{}}
	c, err := dialWith(t, h, h.addr, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return []ssh.Signer{queried, modest}, nil }))
	if err == nil {
		if out := output(t, c, "id"); out != "forced id\n" {
			t.Errorf("%q", out)
		}
	}
	c, err = dialWith(t, h, h.addr, ssh.PublicKeys(modest))
	must(t, err)
	if out := output(t, c, "id"); out != "forced id\n" {
		t.Errorf("%q", out)
	}
	<-h.events.more
	if got := h.events.ended[len(h.events.ended)-1].Identity; got != "carol" {
		t.Errorf("identity %q", got)
	}
}

// refuser lets the client offer a key and then has no signature.
type refuser struct{}

func (refuser) PublicKey() ssh.PublicKey { return nil }
func (refuser) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("no private key")
}

func line(s ssh.Signer) string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

func TestForcedCommand(t *testing.T) {
	for _, test := range []struct{ name, options, command, want string }{
		{"exec", `command="echo forced: $SSH_ORIGINAL_COMMAND"`, "rm -rf x", "forced: rm -rf x\n"},
		{"shell", `command="cat; echo ,$SSH_ORIGINAL_COMMAND"`, "", "input,\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys[0] = test.options + " " + s.Grant.AuthorizedKeys[0] })
			args := []string{}
			if test.command != "" {
				args = append(args, test.command)
			}
			h.ssh("input", args...).want(t, test.want)
		})
	}
	h := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys[0] = `command="internal-sftp" ` + s.Grant.AuthorizedKeys[0] })
	h.file("file", []byte("content"))
	h.run(h.client("scp", "task:file", h.path("got")), "").want(t, "")
	if r := h.ssh("", "echo ran"); strings.Contains(r.stdout, "ran") {
		t.Error("the command ran in place of sftp")
	}
}

func TestPermissionsAreEnforced(t *testing.T) {
	for _, test := range []struct {
		permissions []string
		works       map[string]bool
	}{
		{[]string{}, map[string]bool{}},
		{[]string{auth.PermitExec}, map[string]bool{"exec": true, "shell": true}},
		{[]string{auth.PermitPTY}, map[string]bool{"pty": true, "pty shell": true}},
		{[]string{auth.PermitSFTP}, map[string]bool{"sftp": true}},
		{nil, map[string]bool{"exec": true, "shell": true, "pty": true, "pty shell": true, "pty exec": true, "sftp": true}},
	} {
		t.Run(strings.Join(test.permissions, ","), func(t *testing.T) {
			h := newTestHost(t, func(s *Server) { s.Grant.Permissions = test.permissions })
			c := h.dial()
			for name, requests := range map[string][]string{
				"exec": {"exec"}, "shell": {"shell"}, "pty": {"pty-req"}, "pty shell": {"pty-req", "shell"}, "pty exec": {"pty-req", "exec"}, "sftp": {"subsystem"},
			} {
				if got := try(t, c, requests); got != test.works[name] {
					t.Errorf("%s: %v", name, got)
				}
			}
		})
	}
}

// try sends requests on a new session and tells whether all were accepted.
func try(t *testing.T, c *ssh.Client, requests []string) bool {
	t.Helper()
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	defer ch.Close()
	go ssh.DiscardRequests(reqs)
	for _, r := range requests {
		payload := map[string][]byte{
			"pty-req": ptyRequest("xterm", 80, 24, nil), "exec": ssh.Marshal(struct{ C string }{"true"}), "subsystem": ssh.Marshal(struct{ N string }{"sftp"}),
		}[r]
		if request(ch, r, payload) != nil {
			return false
		}
	}
	return true
}

// Forwardings are refused in the RFC's way, and the connection lives on.
func TestWhatIsNotServedIsRefused(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	for channelType, reason := range map[string]ssh.RejectionReason{
		"direct-tcpip": ssh.Prohibited, "direct-streamlocal@openssh.com": ssh.Prohibited, "auth-agent@openssh.com": ssh.Prohibited, "x11": ssh.Prohibited,
		"bogus": ssh.UnknownChannelType,
	} {
		_, _, err := c.OpenChannel(channelType, nil)
		refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || refusal.Reason != reason {
			t.Errorf("%s: %v", channelType, err)
		}
	}
	for _, name := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "bogus"} {
		if ok, _, err := c.SendRequest(name, true, nil); ok || err != nil {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	if ok, _, err := c.SendRequest("keepalive@openssh.com", true, nil); !ok || err != nil {
		t.Errorf("keepalive: %v %v", ok, err)
	}
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	go ssh.DiscardRequests(reqs)
	for _, name := range []string{"x11-req", "auth-agent-req@openssh.com", "bogus", "pty-req", "exec", "env", "signal", "window-change"} {
		if request(ch, name, []byte{1}) == nil {
			t.Errorf("%s with nonsense was accepted", name)
		}
	}
	if request(ch, "subsystem", ssh.Marshal(struct{ N string }{"netconf"})) == nil {
		t.Error("an unknown subsystem was accepted")
	}
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
}

func TestServeRefusesToStart(t *testing.T) {
	signer, _ := newSigner(t)
	for name, s := range map[string]*Server{
		"no host key":           {Task: "t"},
		"no task":               {HostKey: signer},
		"end to end, no grant":  {Task: "t", HostKey: signer, EndToEndOnly: true},
		"end to end, no key":    {Task: "t", HostKey: signer, EndToEndOnly: true, Grant: &auth.Grant{}},
		"a grant of gibberish":  {Task: "t", HostKey: signer, Grant: &auth.Grant{AuthorizedKeys: []string{"gibberish"}}},
		"an unknown permission": {Task: "t", HostKey: signer, Grant: &auth.Grant{Permissions: []string{"permit-all"}}},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		if err := s.Serve(l); err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is open", name)
		}
	}
}

func TestLimits(t *testing.T) {
	h := newTestHost(t, func(s *Server) {
		s.Limits = Limits{Handshake: 300 * time.Millisecond, Connections: 2, ChannelsPerConnection: 3, EnvVariables: 1}
	})
	silent, err := net.Dial("tcp", h.addr)
	must(t, err)
	defer silent.Close()
	c := h.dial()
	if _, err := dialWith(t, h, h.addr, ssh.PublicKeys(h.guest)); err == nil {
		t.Error("a third connection was served")
	}
	_, err = io.ReadAll(silent) // until the deadline
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	var open []ssh.Channel
	for range 3 {
		ch, reqs, err := c.OpenChannel("session", nil)
		must(t, err)
		go ssh.DiscardRequests(reqs)
		open = append(open, ch)
	}
	_, _, err = c.OpenChannel("session", nil)
	if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refusal.Reason != ssh.ResourceShortage {
		t.Errorf("a fourth channel: %v", err)
	}
	must(t, request(open[0], "env", ssh.Marshal(struct{ N, V string }{"LC_A", "1"})))
	if request(open[0], "env", ssh.Marshal(struct{ N, V string }{"LC_B", "1"})) == nil {
		t.Error("a second variable was accepted")
	}
	open[1].Close()
	eventually(t, "room for a channel", func() bool {
		ch, reqs, err := c.OpenChannel("session", nil)
		if err != nil {
			return false
		}
		go ssh.DiscardRequests(reqs)
		ch.Close()
		return true
	})
}
