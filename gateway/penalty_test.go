package gateway_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// penalised has loopback addresses pay like any other, except for connections that
// try nothing, such as those that look whether an address is shut out. Linux lets
// every one of 127.0.0.0/8 be somebody else.
func penalised(s *gateway.Settings) {
	s.Penalties = gateway.Penalties{Exempt: []netip.Prefix{}, Threshold: 50 * time.Second, Refused: 20 * time.Second, NoSignIn: -1,
		Timeout: time.Hour, Max: time.Hour}
}

// from is an SSH client at another address.
func (w *world) from(address string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 20 * time.Second}
	c, err := d.DialContext(w.t.Context(), "tcp", w.ssh)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, chans, reqs, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{
		User: "task-1", Auth: methods, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	client := ssh.NewClient(conn, chans, reqs)
	w.t.Cleanup(func() { client.Close() })
	return client, nil
}

// shutOut reports whether the gateway closes a connection of an address before it
// has said a word.
func (w *world) shutOut(address string) bool {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c, err := d.DialContext(w.t.Context(), "tcp", w.ssh)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err = io.ReadFull(c, make([]byte, 4))
	return err != nil
}

// TestPenaltyOfRefusedGuests: whoever keeps trying keys is shut out, with its
// connections to either listener. Connections that are open, and others, are not.
func TestPenaltyOfRefusedGuests(t *testing.T) {
	needLoopback(t)
	w := newWorld(t, penalised)
	k, wrong := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "mallory")
	w.startAgent(w.token("task-1", time.Now(), k))
	inside, err := w.from("127.0.0.2", ssh.PublicKeys(k.Signer))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := w.from("127.0.0.2", ssh.PublicKeys(wrong.Signer)); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Fatalf("a wrong key: %v", err)
		}
	}
	eventually(t, "the address is shut out", func() bool { return strings.Contains(w.log.String(), "shut out for a while") })
	if _, err := w.from("127.0.0.2", ssh.PublicKeys(k.Signer)); err == nil || strings.Contains(err.Error(), "unable to authenticate") {
		t.Errorf("the right key: %v", err)
	}
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}, Config: &tls.Config{RootCAs: w.roots}}
	if c, err := d.DialContext(t.Context(), "tcp", w.https); err == nil {
		c.Close()
		t.Error("the HTTPS listener took a connection")
	}
	if err := echoSession(inside); err != nil {
		t.Errorf("the session that was open: %v", err)
	}
	if _, err := w.from("127.0.0.3", ssh.PublicKeys(k.Signer)); err != nil {
		t.Errorf("another address: %v", err)
	}
}

func echoSession(c *ssh.Client) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Run("true")
}

// needLoopback skips where 127.0.0.2 is nobody.
func needLoopback(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		testenv.Skip(t, "this system has one loopback address only")
	}
	l.Close()
}

// TestPenaltyOfTheSilent: neither does it pay to connect and say nothing.
func TestPenaltyOfTheSilent(t *testing.T) {
	needLoopback(t)
	w := newWorld(t, penalised, func(s *gateway.Settings) { s.Limits.HandshakeTimeout = 100 * time.Millisecond })
	for _, address := range []string{w.ssh, w.https} {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		io.Copy(io.Discard, c)
		c.Close()
		eventually(t, "one that timed out is shut out", func() bool { return w.shutOut("127.0.0.2") })
		if w.shutOut("127.0.0.3") {
			t.Error("another address is shut out")
		}
	}
}

// TestPenaltySparesVisitors: who looks at a page has nothing to sign in to, and
// who signs in owes nothing.
func TestPenaltySparesVisitors(t *testing.T) {
	w := newWorld(t, penalised, func(s *gateway.Settings) { s.Penalties.NoSignIn = time.Hour })
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	visit := func(path string, want int) {
		c := w.httpClient()
		defer c.CloseIdleConnections()
		resp, err := c.Get("https://" + w.https + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if io.Copy(io.Discard, resp.Body); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for range 3 {
		visit("/", http.StatusOK)
		w.mustDial("task-1", k).Close()
	}
	visit("/no/such/page", http.StatusNotFound) // of all that came this one pays
	eventually(t, "the address is shut out", func() bool { return strings.Contains(w.log.String(), "shut out") })
}

// TestPenaltyBehindAPage: a look at a page spares nobody who then fails to sign in
// on the same connection.
func TestPenaltyBehindAPage(t *testing.T) {
	w := newWorld(t, penalised, func(s *gateway.Settings) { s.Penalties.Refused = time.Hour })
	wrong := testenv.NewKey(t, w.dir, "mallory")
	c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	client := &http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
	ws, _, err := websocket.Dial(t.Context(), "wss://"+w.https+gateway.GuestWebSocketPath, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	nc := websocket.NetConn(t.Context(), ws, websocket.MessageBinary)
	defer nc.Close()
	_, _, _, err = ssh.NewClientConn(nc, "gateway", &ssh.ClientConfig{
		User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(wrong.Signer)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
		t.Fatalf("a wrong key: %v", err)
	}
	eventually(t, "the address is shut out", func() bool { return w.shutOut("127.0.0.1") })
}

// refusedHost shows a token that is none.
func (w *world) refusedHost() {
	w.t.Helper()
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	if l, err := w.tunnelDialer("task-9", "no token", key, testenv.Signer(w.t)).Dial(w.t.Context()); err == nil {
		l.CloseNow()
		w.t.Error("a host was registered with no token")
	}
}

// TestPenaltyOfFleets: an address with live tunnels pays a tenth, so that one job
// with a bad token does not shut out the others.
func TestPenaltyOfFleets(t *testing.T) {
	w := newWorld(t, penalised)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	for range 5 {
		w.refusedHost()
	}
	w.startAgent(w.token("task-2", time.Now(), k))
}

// TestPenaltyOfBadTokens: elsewhere it counts in full.
func TestPenaltyOfBadTokens(t *testing.T) {
	w := newWorld(t, penalised, func(s *gateway.Settings) { s.Penalties.Refused = time.Hour })
	w.refusedHost()
	eventually(t, "the address is shut out", func() bool { return w.shutOut("127.0.0.1") })
}

// TestPenaltyOfReplayedTokens: whoever shows a copy of a token pays as well.
func TestPenaltyOfReplayedTokens(t *testing.T) {
	w := newWorld(t, penalised, func(s *gateway.Settings) { s.Penalties.Refused = time.Hour })
	token := w.token("task-1", time.Now(), testenv.NewKey(t, w.dir, "alice"))
	w.startHost("task-1", token, answerAtEnd)
	if r := w.refusal(token); r.Code != tunnel.CodeReplayed {
		t.Fatalf("a copy was refused with %+v", r)
	}
	eventually(t, "the address is shut out", func() bool { return w.shutOut("127.0.0.1") })
}

// TestPenaltiesCanBeOff, as by an operator who has another bouncer.
func TestPenaltiesCanBeOff(t *testing.T) {
	w := newWorld(t, penalised, func(s *gateway.Settings) { s.Penalties.Max = -1 })
	for range 5 {
		if _, err := w.dial("task-1"); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Fatal(err)
		}
	}
	if w.shutOut("127.0.0.1") {
		t.Error("the address is shut out")
	}
}
