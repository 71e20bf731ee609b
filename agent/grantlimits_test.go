//go:build linux

package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// limitedHost is a host whose grant bounds what guests may take.
func limitedHost(t *testing.T, limits auth.GrantLimits) *testHost {
	return newTestHost(t, func(s *Server) { s.Grant.Limits = limits })
}

// sit opens a session whose program waits for its guest to leave.
func sit(c *ssh.Client) (*ssh.Session, error) {
	s, err := c.NewSession()
	if err != nil {
		return nil, err
	}
	s.StdinPipe()
	return s, s.Start("cat")
}

func mustSit(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := sit(c)
	must(t, err)
	return s
}

func wantShortage(t *testing.T, err error, words string) {
	t.Helper()
	refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
	if !ok || refusal.Reason != ssh.ResourceShortage || !strings.HasPrefix(refusal.Message, words) {
		t.Errorf("%v, want %q", err, words)
	}
}

// The host itself counts the guests who sign in end to end, by whatever each does first.
func TestGuestLimitEndToEnd(t *testing.T) {
	t.Parallel()
	h := limitedHost(t, auth.GrantLimits{Guests: 2})
	h.dial() // who does nothing takes no place
	first, second, third := h.dial(), h.dial(), h.dial()
	mustSit(t, first)
	mustSit(t, first)
	l, err := second.Listen("tcp", "127.0.0.1:0") // takes one as well
	must(t, err)
	const words = "task task-1 has as many guests as its token allows (2): "
	refused := make(chan error, 2)
	go func() {
		_, err := sit(third)
		refused <- err
	}()
	go func() {
		_, err := h.dial().Dial("tcp", h.addr)
		refused <- err
	}()
	wantShortage(t, <-refused, words)
	wantShortage(t, <-refused, words)
	if l, err := third.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("a third guest has the host listen")
	}
	l.Close()
	second.Close()
	eventually(t, "a guest has made room", func() bool {
		_, err := sit(third)
		return err == nil
	})
	first.Close()
	eventually(t, "another has made room", func() bool { return h.ssh("", "echo in").stdout == "in\n" })
}

// Sessions are counted over all connections, and one after the other is one at a time.
func TestSessionLimitEndToEnd(t *testing.T) {
	t.Parallel()
	h := limitedHost(t, auth.GrantLimits{Sessions: 2})
	one, two := h.dial(), h.dial()
	s := mustSit(t, one)
	mustSit(t, two)
	_, err := sit(two)
	wantShortage(t, err, "task task-1 has as many sessions open as its token allows (2): ")
	s.Close()
	for range 20 {
		s, err := one.NewSession()
		must(t, err)
		must(t, s.Run("true"))
	}
	eventually(t, "a session has made room", func() bool {
		_, err := sit(two)
		return err == nil
	})
}

// A guest whose time is over is told so.
func TestSessionTimeLimitEndToEnd(t *testing.T) {
	t.Parallel()
	h := limitedHost(t, auth.GrantLimits{SessionTime: 4 * time.Second})
	cmd := h.client("ssh", "-tt", "task", "cat")
	in, err := cmd.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), "you were in for 4s, the longest that the token of task task-1 allows at a time") {
		t.Errorf("%v: %q", err, out)
	}
}
