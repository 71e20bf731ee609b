package gateway_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// tripwire is a log whose writer panics, once, where a given line is written: so a
// panic can be had in every handler, and the gateway needs no hook for it.
type tripwire struct {
	slog.Handler
	line *atomic.Pointer[string]
}

func (h tripwire) Enabled(context.Context, slog.Level) bool { return true }

func (h tripwire) WithAttrs(a []slog.Attr) slog.Handler {
	return tripwire{h.Handler.WithAttrs(a), h.line}
}

func (h tripwire) Handle(ctx context.Context, r slog.Record) error {
	if line := h.line.Load(); line != nil && *line == r.Message && h.line.CompareAndSwap(line, nil) {
		panic("injected at " + r.Message)
	}
	return h.Handler.Handle(ctx, r)
}

// TestPanicInEveryHandler ends what it handles, is counted and logged, and nothing
// else: the session of another guest goes on.
func TestPanicInEveryHandler(t *testing.T) {
	needLoopback(t)
	var line atomic.Pointer[string]
	log := &logBuffer{}
	w := newWorldWith(t, gateway.Options{Logger: slog.New(tripwire{slog.NewTextHandler(log, nil), &line})}, penalised, func(s *gateway.Settings) {
		s.Penalties.Max = -1
		s.Limits.UnauthenticatedPerSource = 2
	})
	k, wrong := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "mallory")
	issued := time.Now()
	w.startAgent(w.token("task-1", issued, k))
	bystander := w.mustDial("task-1", k)
	session := func(c *ssh.Client) error {
		s, err := c.NewSession()
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Run("true")
	}
	jump := func(c *ssh.Client) error {
		nc, err := c.Dial("tcp", "task-1:22")
		if err != nil {
			return err
		}
		defer nc.Close()
		_, err = io.ReadFull(nc, make([]byte, 4))
		return err
	}
	for _, test := range []struct {
		line string
		do   func(c *ssh.Client)
		goes bool // the connection c, on which it happened, goes on
	}{
		{"guest signed in", func(*ssh.Client) { w.dialAndClose(k) }, true},
		{"guest did not sign in", func(*ssh.Client) { w.dialAndClose(wrong) }, true},
		{"guest left", func(*ssh.Client) { w.dialAndClose(k) }, true},
		{"channel opened", func(c *ssh.Client) { session(c) }, true},
		{"refused a channel", func(c *ssh.Client) { c.OpenChannel("no-such-type", nil) }, true},
		{"refused a global request", func(c *ssh.Client) { c.SendRequest("no-such-request", true, nil) }, true},
		{"jump began", func(c *ssh.Client) { jump(c) }, true},
		{"jump ended", func(c *ssh.Client) { jump(c) }, true},
		{"refused a jump", func(*ssh.Client) {
			if other, err := w.dial("nobody", ssh.PublicKeys(k.Signer)); err == nil {
				other.Dial("tcp", "no-such-task:22")
				other.Close()
			}
		}, true},
		{"host registered", func(*ssh.Client) { w.startAgent(w.token("task-2", issued, k)) }, true},
		{"host was not registered", func(*ssh.Client) { w.refusedHost() }, true},
		{"host was replaced by a newer one", func(*ssh.Client) {
			w.startStranger(w.token("task-3", issued, k))
			eventually(t, "the first host", func() bool { return w.metric("stagedoor_tasks") == "3" })
			w.startStranger(w.token("task-3", issued.Add(time.Second), k))
		}, true},
		{"an operator ended connections", func(*ssh.Client) {
			admin := httptest.NewServer(w.server.AdminHandler())
			defer admin.Close()
			if resp, err := admin.Client().Post(admin.URL+gateway.AdminKickPath, "", strings.NewReader(`{"task":"task-2"}`)); err == nil {
				resp.Body.Close()
				t.Error("the request was answered")
			}
		}, true},
		{"turned a connection away", func(*ssh.Client) {
			for range 3 {
				c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", w.ssh) // not the host's
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.ReadFull(c, make([]byte, 1)) // its place is taken
			}
		}, true},
	} {
		t.Run(test.line, func(t *testing.T) {
			c := w.mustDial("task-1", k)
			if err := session(c); err != nil { // so that its own sign-in is behind it
				t.Fatal(err)
			}
			before := w.metric("stagedoor_panics_total")
			line.Store(&test.line)
			test.do(c)
			eventually(t, "the panic is counted", func() bool { return w.metric("stagedoor_panics_total") != before })
			eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "injected at "+test.line) })
			if err := session(c); test.goes && err != nil {
				t.Errorf("the connection is of no use any more: %v", err)
			}
			if err := session(bystander); err != nil {
				t.Errorf("another guest: %v", err)
			}
			eventually(t, "the places are given back", func() bool { return w.metric("stagedoor_unauthenticated_connections") == "0" })
		})
	}
	if t.Failed() {
		t.Log(log.String())
	}
	if n := w.metric("stagedoor_panics_total"); n != "14" {
		t.Errorf("%s panics", n)
	}
}

func (w *world) dialAndClose(k testenv.Key) {
	if c, err := w.dial("task-1", ssh.PublicKeys(k.Signer)); err == nil {
		c.Close()
	}
}

// TestPanicInKeepalive and in what finds the TLS certificate: where no handler is.
func TestPanicInKeepalive(t *testing.T) {
	var line atomic.Pointer[string]
	w := newWorldWith(t, gateway.Options{Logger: slog.New(tripwire{slog.DiscardHandler, &line})}, func(s *gateway.Settings) {
		s.Limits.SessionTime = 300 * time.Millisecond
	})
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	closing := "closing a guest's connection"
	line.Store(&closing)
	w.mustDial("task-1", k).Wait() // it ends all the same
	eventually(t, "the panic is counted", func() bool { return w.metric("stagedoor_panics_total") == "1" })
}

func TestPanicInCertificate(t *testing.T) {
	w := newWorld(t)
	broken := w.settings
	broken.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("a defect") }
	if err := w.server.Reload(broken); err != nil {
		t.Fatal(err)
	}
	if _, err := w.httpClient().Get("https://" + w.https); err == nil {
		t.Error("an answer without a certificate")
	}
	eventually(t, "the panic is counted", func() bool { return w.metric("stagedoor_panics_total") == "1" })
	if err := w.server.Reload(w.settings); err != nil {
		t.Fatal(err)
	}
	if resp, err := w.httpClient().Get("https://" + w.https); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
}
