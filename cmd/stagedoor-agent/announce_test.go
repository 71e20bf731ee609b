package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/agent/publish"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// job's log, as an announcer writes it for some variables of a CI system.
type jobLog struct {
	t    *testing.T
	time time.Time
	text strings.Builder
	a    *announcer
}

func newJobLog(t *testing.T, variables map[string]string) *jobLog {
	l := &jobLog{t: t, time: testenv.Noon}
	l.a = &announcer{
		system: ci.Detect(func(name string) string { return variables[name] }),
		log:    &l.text,
		now:    func() time.Time { return l.time },
	}
	return l
}

// after passes time, publishes a report and returns what was written.
func (l *jobLog) after(d time.Duration, r publish.Report) string {
	l.t.Helper()
	l.time = l.time.Add(d)
	l.text.Reset()
	if err := l.a.Publish(l.t.Context(), r); err != nil {
		l.t.Fatal(err)
	}
	return l.text.String()
}

const sshCommand = "ssh -p 2222 task-1@terminal.example.com"

// held is a job that nobody has entered yet.
func held() publish.Report {
	reason := hold.Reason{Command: hold.Command{Args: []string{"make", "test"}}, Status: 2}
	return publish.Report{SSHCommand: sshCommand, Fingerprint: "SHA256:abc", Status: hold.Status{
		Task: "task-1", State: hold.Registered, Held: true, Since: testenv.Noon, Deadline: testenv.Noon.Add(10 * time.Minute), Reason: &reason,
	}}
}

func (l *jobLog) expect(got, want string) {
	l.t.Helper()
	if got != want {
		l.t.Errorf("the log has %q, want %q", got, want)
	}
}

// TestLog: everything new is told at once, and what is not new once a minute.
func TestLog(t *testing.T) {
	l := newJobLog(t, nil)
	r := held()
	r.Held, r.Reason = false, nil
	l.expect(l.after(0, r), "Stagedoor: enter this job while it runs\n"+sshCommand+"\n")
	l.expect(l.after(time.Hour, r), "")
	first := l.after(0, held())
	for _, want := range []string{"\nStagedoor: make test failed with status 2\n", "\n" + sshCommand + "\n", "Nobody is attached", "stagedoor extend", "stagedoor resume"} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in %q", want, first)
		}
	}
	l = newJobLog(t, nil)
	l.after(0, held())
	l.expect(l.after(30*time.Second, held()), "")
	l.expect(l.after(30*time.Second, held()), "Stagedoor: Nobody is attached; the job is held. Held until 12:10:00 UTC (in 9 minutes):\n"+sshCommand+"\n")
	l.expect(l.after(59*time.Second, held()), "")
	r = held()
	r.State, r.Guests = hold.Attached, []hold.Guest{{Identity: "al\x1b[31mice"}}
	l.expect(l.after(0, r), "Stagedoor: alice: attached. Held until 12:10:00 UTC (in 8 minutes):\n"+sshCommand+"\n")
	r.Deadline = r.Deadline.Add(20 * time.Second) // as it moves while somebody types
	l.expect(l.after(time.Second, r), "")
	r.Deadline = r.Deadline.Add(30 * time.Minute) // extended
	l.expect(l.after(time.Second, r), "Stagedoor: alice: attached. Held until 12:40:20 UTC (in 38 minutes):\n"+sshCommand+"\n")
	r.State = hold.Expiring
	if got := l.after(time.Second, r); !strings.Contains(got, "Held until") {
		t.Errorf("before the end: %q", got)
	}
	r.Held, r.Outcome = false, &hold.Outcome{Result: hold.Resumed, Why: "resumed by alice"}
	l.expect(l.after(time.Second, r), "Stagedoor: resumed by alice: the job goes on.\n")
	l.after(0, held())
	r.Outcome = &hold.Outcome{Result: hold.Failed, Why: "ended as failed by alice"}
	l.expect(l.after(time.Second, r), "Stagedoor: ended as failed by alice.\n")
}

// TestLogOfGitHub: the command is on the page of the run as well, once.
func TestLogOfGitHub(t *testing.T) {
	summary := filepath.Join(t.TempDir(), "summary")
	l := newJobLog(t, map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": summary})
	r := held()
	r.Reason.Command.Args = []string{"sh", "-c", "::error::fake\n`x`"}
	got := l.after(0, r)
	if !strings.Contains(got, "\n::notice title=Stagedoor%3A sh -c '%3A%3Aerror%3A%3Afake`x`' failed with status 2::"+sshCommand+"\n") {
		t.Errorf("%q", got)
	}
	if strings.Contains(got, "\n::error") {
		t.Errorf("a command of somebody else's: %q", got)
	}
	if again := l.after(time.Hour, r); strings.Contains(again, "::notice") {
		t.Errorf("again: %q", again)
	}
	data, err := os.ReadFile(summary)
	if err != nil || !strings.Contains(string(data), "```sh\n"+sshCommand+"\n```") || !strings.Contains(string(data), "`sh -c '::error::fake'x'' failed with status 2`") {
		t.Errorf("%v: %s", err, data)
	}
}

// TestPassword: a one-time password is for the log, once.
func TestPassword(t *testing.T) {
	l := newJobLog(t, nil)
	password := "ABCD-EFGH"
	l.a.password.Store(&password)
	const want = "stagedoor-agent: for one guest without a key, who is asked for it, the one-time password: ABCD-EFGH\n"
	if got := l.after(0, held()); !strings.HasPrefix(got, want) {
		t.Errorf("%q", got)
	}
	if got := l.after(time.Hour, held()); strings.Contains(got, password) {
		t.Errorf("again: %q", got)
	}
}

// TestNoAddress says whom to ask.
func TestNoAddress(t *testing.T) {
	l := newJobLog(t, nil)
	l.expect(l.after(0, publish.Report{Fingerprint: "SHA256:abc"}), "stagedoor-agent: the gateway gave no address that could be shown: ask its operator to set ssh.address\n")
}
