package gateway_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// forever is how long a task is remembered where a test must not wait for it.
func forever(s *gateway.Settings) {
	s.Limits.HostGrace, s.Limits.HostTimeout = time.Hour, time.Hour
}

// TestStoppedAgentIsForgotten: an agent that is stopped says goodbye, so that
// nobody waits for it to come back.
func TestStoppedAgentIsForgotten(t *testing.T) {
	k := testenv.NewKey(t, t.TempDir(), "alice")
	w := newWorld(t, forever, withOperatorKeys(t, k.Line+"\n"))
	a := w.startAgent(w.token("task-1", time.Now(), k))
	before, idle := w.mustDial("task-1", k), w.mustDial("task-1", k)
	s, err := before.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	a.stop()
	if err := s.Wait(); err == nil {
		t.Error("a session outlived the agent")
	}
	if err := before.Wait(); err == nil {
		t.Error("the connection ended in order, though its host did not")
	}
	eventually(t, "the task is forgotten", func() bool { return strings.Contains(w.log.String(), `reason="the agent has stopped"`) })
	const words = "task task-1 has no host now"
	s, err = idle.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	s.Stderr = &stderr
	if s.Run("true"); !strings.Contains(stderr.String(), words) {
		t.Errorf("a guest who was there is told %q", stderr.String())
	}
	if out, err := w.sshCommand("task-1", k, "true").CombinedOutput(); err == nil || !strings.Contains(string(out), words) {
		t.Errorf("a guest who comes is told %q", out)
	}
}

// tokenUntil mints a token for a task whose time ends.
func (w *world) tokenUntil(until time.Time, k testenv.Key) string {
	w.t.Helper()
	token, err := auth.MintToken(w.tokenKey, auth.Token{Task: "task-1", ID: rand.Text(), IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: []string{k.Line}, Until: until}})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// TestTaskWhoseTimeIsOverIsNotRegistered: not even for a moment.
func TestTaskWhoseTimeIsOverIsNotRegistered(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	r := w.refusal(w.tokenUntil(time.Now().Add(-time.Minute), k))
	if r.Code != tunnel.CodeExpired || r.Retry || !strings.Contains(r.Message, "the time of task task-1 is over") {
		t.Errorf("refused with %+v", r)
	}
	if strings.Contains(w.log.String(), "host registered") {
		t.Error("it was registered")
	}
}

// TestTimeIsOver: when the deadline comes the guests are told, their ssh ends with
// 255, and so is the agent, which does not dial again.
func TestTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	var lost bool
	a := w.startAgent(w.tokenUntil(time.Now().Add(3*time.Second), k), func(a *agent.Agent) {
		a.State = func(s tunnel.State) { lost = lost || s.Kind == tunnel.StateLost }
	})
	out, err := w.sshCommand("task-1", k, "echo in; exec sleep 1000").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 255 {
		t.Errorf("ssh: %v, want exit status 255", err)
	}
	if got := string(out); !strings.Contains(got, "in\n") || !strings.Contains(got, "stagedoor: the time of task task-1 is over\r\n") {
		t.Errorf("the guest reads %q", got)
	}
	err = await(t, a.done, "the agent's end")
	refusal, ok := errors.AsType[*tunnel.Refusal](err)
	if !ok || refusal.Code != tunnel.CodeExpired || !strings.Contains(err.Error(), "the time of task task-1 is over") {
		t.Errorf("the agent ended with %v", err)
	}
	if lost {
		t.Error("the agent took it for a lost link")
	}
	eventually(t, "the tunnel has ended", func() bool { return strings.Contains(w.log.String(), `reason="the task's deadline has come"`) })
}

// TestHostIsLost: a guest whose host is killed reads so.
func TestHostIsLost(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	relay := testenv.NewRelay(t, w.https)
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) { a.Gateway = relay.Addr() })
	cmd := w.sshCommand("task-1", k, "echo in; exec sleep 1000")
	var out logBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the guest is in", func() bool { return strings.Contains(out.String(), "in\n") })
	relay.Cut()
	if err := cmd.Wait(); err == nil {
		t.Error("ssh ended well")
	}
	if want := "in\n\r\nstagedoor: the host of task task-1 is lost: its job was killed, or its connection broke\r\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("the guest reads %q", out.String())
	}
}
