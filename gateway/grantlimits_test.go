package gateway_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// limitedToken is a token that bounds what guests may take.
func (w *world) limitedToken(task string, limits auth.GrantLimits, keys ...testenv.Key) string {
	w.t.Helper()
	var lines []string
	for _, k := range keys {
		lines = append(lines, k.Line)
	}
	raw, err := auth.MintToken(w.tokenKey, auth.Token{Task: auth.TaskID(task), ID: rand.Text(), Expires: time.Now().Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: lines, Limits: limits}})
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// sitIn runs a program that waits for its guest to leave.
func sitIn(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := trySitting(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func trySitting(c *ssh.Client) (*ssh.Session, error) {
	s, err := c.NewSession()
	if err != nil {
		return nil, err
	}
	out, _ := s.StdoutPipe()
	s.StdinPipe()
	if err := s.Start("echo in; cat"); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(out, make([]byte, 3)) // it ends with 255 where there is no host
	return s, err
}

// TestGuestLimit: a task takes as many guests as its token allows, all connections
// and jumps of one guest counted, and another when one has left.
func TestGuestLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	hostKey := testenv.Signer(t)
	w.startAgent(w.limitedToken("task-1", auth.GrantLimits{Guests: 2}, alice, bob), func(a *agent.Agent) { a.HostKey = hostKey })
	w.mustDial("task-1", bob) // who does nothing takes no place
	first := w.mustDial("task-1", alice)
	sitIn(t, first)
	sitIn(t, first) // more of the same
	hop := w.mustDial("task-1", alice)
	inside, err := jumpTo(hop, "task-1")
	if err != nil {
		t.Fatal(err)
	}
	if text := w.explain("task-1", alice.Line); !strings.Contains(text, "its token allows 2 guests at a time, and there are 2") {
		t.Errorf("an operator is told %s", text)
	}

	const words = "task task-1 has as many guests as its token allows (2): try again when one has left"
	refused := make(chan string, 2)
	go func() {
		out, err := w.sshCommand("task-1", bob, "echo in").CombinedOutput()
		if err == nil {
			out = append(out, " and it succeeded"...)
		}
		refused <- string(out)
	}()
	go func() {
		_, err := jumpTo(hop, "task-1")
		refused <- errorText(err)
	}()
	for range 2 {
		if text := <-refused; !strings.Contains(text, words) || strings.Contains(text, "in\n") || strings.Contains(text, "succeeded") {
			t.Errorf("a third guest was told %q", text)
		}
	}
	inside.Close()
	eventually(t, "a jump has made room", func() bool {
		out, err := w.sshCommand("task-1", bob, "echo in").Output()
		return err == nil && string(out) == "in\n"
	})
	first.Close()
	eventually(t, "a guest has made room", func() bool {
		_, err := jumpTo(hop, "task-1")
		return err == nil
	})
	eventually(t, "a command has made room", func() bool {
		_, err := trySitting(w.mustDial("task-1", bob))
		return err == nil
	})
}

func errorText(err error) string {
	if err == nil {
		return "it succeeded"
	}
	return err.Error()
}

// TestSessionLimit: a task has as many sessions open as its token allows, over all
// connections, and another when one has ended.
func TestSessionLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	w.startAgent(w.limitedToken("task-1", auth.GrantLimits{Sessions: 2}, alice, bob))
	one, two := w.mustDial("task-1", alice), w.mustDial("task-1", bob)
	s := sitIn(t, one)
	sitIn(t, two)
	_, err := trySitting(two)
	refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
	if !ok || refusal.Reason != ssh.ResourceShortage || !strings.HasPrefix(refusal.Message, "task task-1 has as many sessions open as its token allows (2): end one") {
		t.Errorf("a third session: %v", err)
	}
	s.Close()
	for range 20 { // one after the other is one at a time
		s, err := one.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run("true"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a session has made room", func() bool {
		_, err := trySitting(two)
		return err == nil
	})
}

// TestSessionTimeLimit: who has stayed for as long as the token allows is told so,
// and goes.
func TestSessionTimeLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.limitedToken("task-1", auth.GrantLimits{SessionTime: 4 * time.Second}, k))
	var stderr bytes.Buffer
	cmd := w.sshCommand("task-1", k, "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil || !strings.Contains(stderr.String(), "stagedoor: you were in for 4s, the longest that the token of task task-1 allows at a time") {
		t.Errorf("%v: %q, %q", err, out, &stderr)
	}
}
