package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	holding "github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// taskStatus is what an operator is shown of the only task.
func (w *world) taskStatus() gateway.TaskStatus {
	w.t.Helper()
	answer := httptest.NewRecorder()
	w.server.AdminHandler().ServeHTTP(answer, httptest.NewRequest("GET", gateway.AdminTasksPath, nil))
	var tasks []gateway.TaskStatus
	if err := json.Unmarshal(answer.Body.Bytes(), &tasks); err != nil || len(tasks) != 1 {
		w.t.Fatalf("%s: %v", answer.Body, err)
	}
	return tasks[0]
}

// TestStateIsShown: operators see how a task fares, also after its agent has lost
// the tunnel and come back.
func TestStateIsShown(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, t.TempDir(), "alice")
	a := w.startAgent(w.token("task-1", time.Now(), k))
	eventually(t, "the task is registered", func() bool { return w.taskStatus().State == "registered" })
	go a.Hold(t.Context(), holding.Reason{Status: 1})
	eventually(t, "the job is held", func() bool { return w.taskStatus().HeldUntil != nil })
	if left := time.Until(*w.taskStatus().HeldUntil); left < 5*time.Minute || left > 10*time.Minute {
		t.Errorf("it is held for %s", left)
	}
	if out, err := w.sshCommand("task-1", k, "stagedoor", "extend", "30m").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "it was extended", func() bool { return time.Until(*w.taskStatus().HeldUntil) > 20*time.Minute })
	if n := len(mustStatus(t, a.Agent).Guests); n != 0 {
		t.Errorf("who ran a verb alone counts as attached: %d guests", n)
	}
	s, err := w.mustDial("task-1", k).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "somebody is attached", func() bool { return w.taskStatus().State == "attached" })
	if _, err := a.Resume(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the job goes on", func() bool { return w.taskStatus().HeldUntil == nil })
}

func mustStatus(t *testing.T, a *agent.Agent) holding.Status {
	t.Helper()
	s, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStateOfAStrangeHost: what a host says is a word, or nothing.
func TestStateOfAStrangeHost(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, t.TempDir(), "alice")
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	l, err := w.tunnelDialer("task-1", w.token("task-1", time.Now(), k), key, testenv.Signer(t)).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.CloseNow()
	for _, state := range []string{"\x1b[2Jready", "Ready", "", "a state of some twenty and more bytes", "last"} {
		if err := l.Control().Send(t.Context(), tunnel.Message{Type: tunnel.TypeState, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last one is shown", func() bool {
		state := w.taskStatus().State
		if state != "" && state != "last" {
			t.Fatalf("%q is shown", state)
		}
		return state == "last"
	})
}
