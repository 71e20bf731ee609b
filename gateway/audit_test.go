package gateway_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/gateway/audit"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// auditedWorld is a world with an audit stream, and its file.
func auditedWorld(t *testing.T, change ...func(*gateway.Settings)) (*world, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	stream, err := audit.Open(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	return newWorldWith(t, gateway.Options{Audit: stream}, change...), file
}

// awaitEvent waits for an event of that name in the audit stream.
func awaitEvent(t *testing.T, file, name string) (event map[string]any) {
	t.Helper()
	eventually(t, name+" is recorded", func() bool {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			event = nil
			if json.Unmarshal([]byte(line), &event) == nil && event["event"] == name {
				return true
			}
		}
		return false
	})
	return event
}

// admin has an operator do something over the admin socket.
func (w *world) admin(path string, ask gateway.AdminRequest) {
	w.t.Helper()
	body, err := json.Marshal(ask)
	if err != nil {
		w.t.Fatal(err)
	}
	r := httptest.NewRequest("POST", path, strings.NewReader(string(body)))
	answer := httptest.NewRecorder()
	w.server.AdminHandler().ServeHTTP(answer, r.WithContext(gateway.WithAdminPeer(r.Context(), "root (process 1)")))
	if answer.Code != 200 {
		w.t.Errorf("%s: %s", path, answer.Body)
	}
}

// TestWhoEndedIt: the audit stream says who or what ended a guest's connection.
func TestWhoEndedIt(t *testing.T) {
	short := 300 * time.Millisecond
	for _, test := range []struct {
		by     string
		change func(*gateway.Settings)
		end    func(w *world, k testenv.Key, c *ssh.Client)
	}{
		{by: "guest", end: func(_ *world, _ testenv.Key, c *ssh.Client) { c.Close() }},
		{by: "host", end: func(_ *world, _ testenv.Key, c *ssh.Client) { c.OpenChannel("session", nil) }},
		{by: "kicked", end: func(w *world, _ testenv.Key, c *ssh.Client) {
			w.admin(gateway.AdminKickPath, gateway.AdminRequest{Identity: "alice", By: "carol"})
		}},
		{by: "blocked", end: func(w *world, k testenv.Key, c *ssh.Client) {
			w.admin(gateway.AdminBlockPath, gateway.AdminRequest{Key: ssh.FingerprintSHA256(k.Signer.PublicKey()), By: "carol"})
		}},
		{by: "limit", change: func(s *gateway.Settings) { s.Limits.ConnectionsPerIdentity = 1 },
			end: func(w *world, k testenv.Key, _ *ssh.Client) { w.dialAndClose(k) }},
		{by: "session_time", change: func(s *gateway.Settings) { s.Limits.SessionTime = short }},
		{by: "drain", end: func(w *world, _ testenv.Key, _ *ssh.Client) { w.server.Close() }},
		{by: "keepalive", change: func(s *gateway.Settings) { s.Limits.KeepaliveInterval, s.Limits.KeepaliveCount = short, 1 }},
	} {
		t.Run(test.by, func(t *testing.T) {
			t.Parallel()
			change := func(*gateway.Settings) {}
			if test.change != nil {
				change = test.change
			}
			w, file := auditedWorld(t, change)
			k := testenv.NewKey(t, w.dir, "alice")
			w.startHost("task-1", w.token("task-1", time.Now(), k), hangUp)
			if test.by == "keepalive" {
				w.deafGuest(k)
			} else {
				c := w.mustDial("task-1", k)
				if test.end != nil {
					test.end(w, k, c)
				}
			}
			if left := awaitEvent(t, file, "guest.left"); left["by"] != test.by {
				t.Errorf("it was ended by %v: %v", left["by"], left["reason"])
			}
			switch test.by {
			case "kicked", "blocked":
				if e := awaitEvent(t, file, "admin."+test.by); e["by"] != "carol" || e["peer"] != "root (process 1)" {
					t.Errorf("the operator: %v", e)
				}
			}
		})
	}
}

// hangUp ends the connection of a guest who has come.
func hangUp(h *fakeHost, c *tunnel.Stream) {
	if conn, _, _, err := h.sshServer(c); err == nil {
		conn.Close()
	}
}

// deafGuest signs in and then says nothing any more.
func (w *world) deafGuest(k testenv.Key) {
	w.t.Helper()
	r := newRelay(w.t, w.ssh)
	c, err := ssh.Dial("tcp", r.Addr().String(), &ssh.ClientConfig{
		User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(k.Signer)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	r.freeze()
}

// TestListenersAreRecorded with the port that the host chose, and their end.
func TestListenersAreRecorded(t *testing.T) {
	w, file := auditedWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	c := w.mustDial("task-1", k)
	l, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := awaitEvent(t, file, "listen.opened")
	if opened["target"] != l.Addr().String() || opened["type"] != "tcpip-forward" || opened["identity"] != "alice" {
		t.Errorf("%s: %v", l.Addr(), opened)
	}
	l.Close()
	if closed := awaitEvent(t, file, "listen.closed"); closed["target"] != l.Addr().String() || closed["conn"] != opened["conn"] {
		t.Errorf("%s: %v", l.Addr(), closed)
	}
}

// TestRefusalsAreExplained: the audit stream says why a key opened nothing.
func TestRefusalsAreExplained(t *testing.T) {
	w, file := auditedWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	w.admin(gateway.AdminBlockPath, gateway.AdminRequest{Key: ssh.FingerprintSHA256(k.Signer.PublicKey())})
	w.dialAndClose(k)
	if e := awaitEvent(t, file, "guest.refused"); !strings.Contains(e["reason"].(string), "an operator has blocked key") {
		t.Errorf("a blocked key: %v", e)
	}
}
