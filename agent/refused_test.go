//go:build linux

package agent

import (
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// What a guest is refused end to end is in the agent's log, as nobody else sees it.
func TestRefusalsAreLogged(t *testing.T) {
	logs := new(syncBuffer)
	h := newTestHost(t, func(s *Server) {
		s.Logger = slog.New(slog.NewTextHandler(logs, nil))
		s.Grant.Permissions = []string{auth.PermitPTY, auth.PermitPortForwarding}
		s.Grant.PermitOpen, s.Grant.PermitListen = []string{"127.0.0.1:1"}, []string{}
	})
	h.ssh("", "true")
	h.ssh("", "-s", "sftp")
	h.ssh("", "-W", "127.0.0.1:2")
	h.ssh("", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:2")
	for _, want := range []string{
		`msg="refused a request" task=task-1 remote=%s identity=alice type=exec error="permission denied: exec needs the permission exec, which you were not granted"`,
		`msg="refused a request" task=task-1 remote=%s identity=alice type=subsystem error="permission denied: `,
		`msg="refused a channel" task=task-1 remote=%s identity=alice type=direct-tcpip error=`,
		`msg="refused a global request" task=task-1 remote=%s identity=alice type=tcpip-forward error="permission denied: `,
	} {
		before, after, _ := strings.Cut(want, "%s")
		found := false
		for line := range strings.Lines(logs.String()) {
			found = found || strings.Contains(line, "level=INFO") && strings.Contains(line, before) && strings.Contains(line, after)
		}
		if !found {
			t.Errorf("not in the log: %s\n%s", want, logs.String())
		}
	}
}

// A guest does not fill the log with what it is refused.
func TestLoggedRefusalsAreBounded(t *testing.T) {
	logs := new(syncBuffer)
	h := newTestHost(t, func(s *Server) { s.Logger = slog.New(slog.NewTextHandler(logs, nil)) })
	c := h.dial()
	for range 5 * maxRefusalsLogged {
		c.OpenChannel("bogus", nil)
		c.SendRequest("bogus", true, nil)
	}
	if n := strings.Count(logs.String(), "msg=\"refused a"); n != maxRefusalsLogged {
		t.Errorf("%d refusals in the log, want %d", n, maxRefusalsLogged)
	}
}

// Who has no key that the token names reads so before ssh gives up, and the log names the keys.
func TestRefusedGuestIsTold(t *testing.T) {
	other, _ := newSigner(t)
	logs := new(syncBuffer)
	h := newTestHost(t, func(s *Server) {
		s.Logger = slog.New(slog.NewTextHandler(logs, nil))
		s.Grant = &auth.Grant{AuthorizedKeys: []string{line(other)}}
	})
	print := ssh.FingerprintSHA256(h.guest.PublicKey())
	r := h.ssh("", "-o", "BatchMode=no", "-o", "LogLevel=INFO", "true")
	if r.status != 255 || strings.Count(r.stderr, "the job's token names no key that your ssh client offered") != 1 ||
		!strings.Contains(r.stderr, "\n  "+print) || !strings.Contains(r.stderr, "not those of the gateway's own file") {
		t.Errorf("%+v", r)
	}
	eventually(t, "it is logged", func() bool { return strings.Contains(logs.String(), "guest not signed in") })
	if got := logs.String(); !strings.Contains(got, "offered=["+print+"] reasons=") || strings.Contains(got, "no auth passed yet") {
		t.Errorf("the log:\n%s", got)
	}
}
