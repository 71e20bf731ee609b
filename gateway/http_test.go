package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestSSHOnHTTPSPort is for guests whose network lets only port 443 out.
func TestSSHOnHTTPSPort(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	w.ssh = w.https
	if out, err := w.sshCommand("task-1", k, "echo there").CombinedOutput(); err != nil || string(out) != "there\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// TestSilentClientOnHTTPSPort waits for the server's version before it speaks,
// as RFC 4253 §4.2 allows.
func TestSilentClientOnHTTPSPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := hold(t, w.https, 1)[0]
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "SSH-2.0-OpenSSH_compatible_Stagedoor") {
		t.Errorf("%v: %q", err, line)
	}
}

func TestPlainHTTPOnHTTPSPort(t *testing.T) {
	w := newWorld(t)
	resp, err := http.Get("http://" + w.https + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "HTTPS") {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

func (w *world) httpClient() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestSSHOverWebSocket is what `stagedoor proxy` does.
func TestSSHOverWebSocket(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	ws, _, err := websocket.Dial(t.Context(), "wss://"+w.https+gateway.GuestWebSocketPath, &websocket.DialOptions{HTTPClient: w.httpClient()})
	if err != nil {
		t.Fatal(err)
	}
	nc := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	defer nc.Close()
	conn, chans, reqs, err := ssh.NewClientConn(nc, "gateway", &ssh.ClientConfig{
		User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(k.Signer)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(conn, chans, reqs)
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo there; echo $SSH_CONNECTION"); err != nil || !strings.HasPrefix(string(out), "there\n127.0.0.1 ") {
		t.Errorf("%v: %q, want the guest's address too", err, out)
	}
}

func TestFrontPage(t *testing.T) {
	w := newWorld(t)
	resp, err := w.httpClient().Get("https://" + w.https + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, port, _ := net.SplitHostPort(w.ssh)
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "ssh -p "+port+" TASK@127.0.0.1") {
		t.Errorf("the front page does not show the ssh command:\n%s", body)
	}
}

func TestFrontPageAtTheUsualPort(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Address = "terminal.example.com:22" })
	resp, err := w.httpClient().Get("https://" + w.https + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "    ssh TASK@terminal.example.com\n") {
		t.Errorf("the front page:\n%s", body)
	}
}

func TestPrivateEndpoints(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	get := func(path string) (int, string) {
		rec := httptest.NewRecorder()
		w.server.PrivateHandler().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		return rec.Code, rec.Body.String()
	}
	if out, err := w.sshCommand("task-1", k, "echo 1234567").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(path); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	eventually(t, "the guest is gone", func() bool { _, text := get("/metrics"); return strings.Contains(text, "stagedoor_guests 0\n") })
	_, text := get("/metrics")
	for _, want := range []string{
		"stagedoor_tunnels 1\n", "stagedoor_guests 0\n", "stagedoor_tasks 1\n", `stagedoor_guest_sign_ins_total{result="ok"} 1`,
		`stagedoor_channels_total{from="guest",type="session"} 1`, `stagedoor_channel_bytes_total{from="host"} 8`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	if strings.Contains(text, "task-1") {
		t.Error("metrics name a task")
	}
	w.server.SetReady(false)
	if code, _ := get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz while draining: %d", code)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz while draining: %d", code)
	}
}
