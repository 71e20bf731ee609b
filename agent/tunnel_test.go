//go:build linux

package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// patience is a deadline against hanging, not an expectation.
const patience = time.Minute

// fakeGateway takes tunnels over real TLS and lets the test answer each Hello.
type fakeGateway struct {
	t       *testing.T
	key     ed25519.PrivateKey
	ca      ssh.Signer
	addr    string
	roots   *tls.Config
	tunnels chan *tunnel.Tunnel
}

func newFakeGateway(t *testing.T, admit func(tunnel.Hello) (tunnel.Welcome, error)) *fakeGateway {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	ca, err := ssh.NewSignerFromKey(key)
	check(err)
	l, roots := listenTLS(key)
	g := &fakeGateway{t: t, key: key, ca: ca, addr: l.Addr().String(), roots: roots, tunnels: make(chan *tunnel.Tunnel, 10)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			tun, err := tunnel.Accept(context.Background(), nc, nil, func(_ context.Context, _ *tunnel.Tunnel, h tunnel.Hello) (tunnel.Welcome, error) {
				w, err := admit(h)
				w.CA = ca.PublicKey().Marshal()
				return w, err
			})
			if err == nil {
				g.tunnels <- tun
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		close(g.tunnels)
		for tun := range g.tunnels {
			tun.Close()
		}
	})
	return g
}

// next returns the next tunnel that was let in.
func (g *fakeGateway) next() *tunnel.Tunnel {
	g.t.Helper()
	select {
	case tun := <-g.tunnels:
		g.t.Cleanup(func() { tun.Close() })
		return tun
	case <-time.After(patience):
		g.t.Fatal("no tunnel")
		return nil
	}
}

// agent returns an Agent with a token for task-42 and this gateway.
func (g *fakeGateway) agent(grant auth.Grant) *agent.Agent {
	g.t.Helper()
	token, err := auth.MintToken(g.key, auth.Token{Task: "task-42", ID: "1", IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour), Grant: grant})
	check(err)
	return &agent.Agent{Gateway: g.addr, Token: token, TLSConfig: g.roots, Dir: g.t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.t.TempDir()}}
}

// run runs an Agent until the test ends; wait returns what it returned.
func run(t *testing.T, a *agent.Agent) (wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- a.Run(ctx) }()
	wait = func() error {
		select {
		case err := <-result:
			result <- err
			return err
		case <-time.After(patience):
			t.Fatal("the agent runs on")
			return nil
		}
	}
	t.Cleanup(func() { cancel(); wait() })
	return wait
}

// client opens a stream and signs in on it.
func (g *fakeGateway) client(tun *tunnel.Tunnel, mode string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	g.t.Helper()
	alice := auth.Identity{Name: "alice", Remote: netip.MustParseAddrPort("192.0.2.1:50000")}
	cert, err := auth.IssueGuestCertificate(g.ca, alice, "task-42", auth.DefaultPermissions(), time.Now(), time.Minute)
	check(err)
	stream, err := tun.Dial(g.t.Context(), tunnel.StreamHeader{Mode: mode, Remote: alice.Remote.String(), Certificate: cert.Marshal()})
	if err != nil {
		return nil, err
	}
	hostKey, err := ssh.ParsePublicKey(tun.Hello().HostKey)
	check(err)
	conn, chans, reqs, err := ssh.NewClientConn(stream, "", &ssh.ClientConfig{User: "anyone", Auth: methods, HostKeyCallback: ssh.FixedHostKey(hostKey)})
	if err != nil {
		stream.Close()
		return nil, err
	}
	c := ssh.NewClient(conn, chans, reqs)
	g.t.Cleanup(func() { c.Close() })
	return c, nil
}

func welcome(tunnel.Hello) (tunnel.Welcome, error) {
	return tunnel.Welcome{Address: "gateway.example.com:2222", Renewal: "renewal"}, nil
}

func TestRunNeedsAToken(t *testing.T) {
	for _, token := range []string{"", "gibberish"} {
		if err := (&agent.Agent{Gateway: "localhost", Token: token}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "token") || strings.Contains(err.Error(), "gibberish") {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestRunEndsWhenRefusedForGood(t *testing.T) {
	g := newFakeGateway(t, func(tunnel.Hello) (tunnel.Welcome, error) {
		return tunnel.Welcome{}, &tunnel.Refusal{Code: tunnel.CodeExpired, Message: "the token has expired"}
	})
	err := run(t, g.agent(auth.Grant{}))()
	if r, ok := errors.AsType[*tunnel.Refusal](err); !ok || r.Code != tunnel.CodeExpired {
		t.Fatalf("%v", err)
	}
}

// A lost tunnel is dialled again with the credential that the Welcome gave, by the same agent. What ran in it is gone.
func TestAgentComesBack(t *testing.T) {
	g := newFakeGateway(t, welcome)
	a := g.agent(auth.Grant{})
	registered := make(chan agent.Registration, 10)
	a.Registered = func(r agent.Registration) { registered <- r }
	ended := make(chan agent.SessionInfo, 1)
	a.SessionEnd = func(info agent.SessionInfo) { ended <- info }
	run(t, a)
	first := g.next()
	if h := first.Hello(); h.Token != a.Token || h.Renewal != "" || h.Task != "task-42" {
		t.Errorf("hello: %+v", h)
	}
	c, err := g.client(first, tunnel.ModeSpliced)
	check(err)
	s, err := c.NewSession()
	check(err)
	out, err := s.StdoutPipe()
	check(err)
	check(s.Start("echo $$ > pid; echo up; exec sleep 1000"))
	_, err = out.Read(make([]byte, 1)) // the file is there
	check(err)
	first.Close()
	if info := <-ended; info.ExitStatus != -1 || info.Identity != "alice" || info.EndToEnd {
		t.Errorf("%+v", info)
	}
	second := g.next()
	if h := second.Hello(); h.Token != "" || h.Renewal != "renewal" || !h.AgentKey.Equal(first.Hello().AgentKey) {
		t.Errorf("second hello: %+v", h)
	}
	c, err = g.client(second, tunnel.ModeSpliced)
	check(err)
	s, err = c.NewSession()
	check(err)
	said, err := s.Output("test -s pid && ! kill -0 $(cat pid) 2>/dev/null && echo gone")
	if string(said) != "gone\n" || err != nil {
		t.Errorf("%q %v", said, err)
	}
	r := <-registered
	if r.SSHCommand != "ssh -p 2222 task-42@gateway.example.com" || r.Task != "task-42" || r.Address != "gateway.example.com:2222" || !strings.HasPrefix(r.Fingerprint, "SHA256:") {
		t.Errorf("%+v", r)
	}
	if a.LastActivity().IsZero() {
		t.Error("no activity")
	}
}

// A gateway that cannot check the credential for coming back is shown the token once more.
func TestAgentFallsBackOnItsToken(t *testing.T) {
	g := newFakeGateway(t, func(h tunnel.Hello) (tunnel.Welcome, error) {
		if h.Renewal != "" {
			return tunnel.Welcome{}, &tunnel.Refusal{Code: tunnel.CodeBadToken}
		}
		return welcome(h)
	})
	run(t, g.agent(auth.Grant{}))
	g.next().Close()
	if h := g.next().Hello(); h.Token == "" {
		t.Error("no token")
	}
}

func TestEndToEndThroughATunnel(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	guest, err := ssh.NewSignerFromKey(key)
	check(err)
	g := newFakeGateway(t, welcome)
	a := g.agent(auth.Grant{AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(guest.PublicKey())))}})
	a.EndToEndOnly = true
	registered := make(chan agent.Registration, 1)
	a.Registered = func(r agent.Registration) { registered <- r }
	run(t, a)
	tun := g.next()
	if !tun.Hello().EndToEndOnly {
		t.Error("the gateway was not told")
	}
	if _, err := g.client(tun, tunnel.ModeEndToEnd, ssh.PublicKeys(guest)); err != nil {
		t.Error(err)
	}
	for _, mode := range []string{tunnel.ModeSpliced, tunnel.ModeEndToEnd} {
		if _, err := g.client(tun, mode); err == nil {
			t.Errorf("%s: the gateway alone got in", mode)
		}
	}
	if r := <-registered; !strings.HasPrefix(r.SSHCommand, "ssh -J task-42@gateway.example.com:2222 ") || r.SSHCommand != r.EndToEndCommand {
		t.Errorf("%+v", r)
	}
}

// An address that could be an option of ssh, or more than an address, makes no command.
func TestGatewayCannotForgeTheCommand(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "-oProxyCommand=evil:22", "host;evil:22", "host:22 -v", "$(evil):22"} {
		g := newFakeGateway(t, func(tunnel.Hello) (tunnel.Welcome, error) { return tunnel.Welcome{Address: address}, nil })
		a := g.agent(auth.Grant{AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(g.ca.PublicKey())))}})
		registered := make(chan agent.Registration, 1)
		a.Registered = func(r agent.Registration) { registered <- r }
		run(t, a)
		if r := <-registered; r.SSHCommand != "" || r.Address != "" || r.EndToEndCommand != "" || r.CertifiedCommand != "" {
			t.Errorf("%q: %+v", address, r)
		}
	}
}

func TestStateDirKeepsTheKeys(t *testing.T) {
	g := newFakeGateway(t, welcome)
	var hellos []tunnel.Hello
	dir := filepath.Join(t.TempDir(), "state")
	for range 2 {
		a := g.agent(auth.Grant{})
		a.StateDir = dir
		run(t, a)
		tun := g.next()
		hellos = append(hellos, tun.Hello())
		tun.Close()
	}
	if string(hellos[0].HostKey) != string(hellos[1].HostKey) || !hellos[0].AgentKey.Equal(hellos[1].AgentKey) {
		t.Error("the keys have changed")
	}
}
