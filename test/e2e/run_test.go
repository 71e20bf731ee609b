package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent/publish"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestRun: what becomes of a job whose command runs under stagedoor-agent run, as its CI system and its guests see it.
func TestRun(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]func(*job, *testing.T){
		"held":              (*job).testHeld,
		"rerun":             (*job).testRerun,
		"failed by a guest": (*job).testFailed,
		"nobody comes":      (*job).testNobodyComes,
		"cancelled":         (*job).testCancelled,
		"cancelled in hold": (*job).testCancelledInHold,
		"killed":            (*job).testKilled,
		"story":             (*job).testStory,
		"in steps":          (*job).testSteps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newJob(t, w, strings.ReplaceAll(name, " ", "-")), t)
		})
	}
}

// job is a task of a world, with directories of its own.
type job struct {
	*world
	tmp string   // TMPDIR: where nothing is to be left
	env []string // of the steps
}

func newJob(t *testing.T, w *world, task string) *job {
	of := *w
	of.t, of.task, of.dir = t, task, t.TempDir()
	of.home = filepath.Join(of.dir, "work")
	j := &job{world: &of, tmp: filepath.Join(of.dir, "tmp")}
	mustDo(t, os.Mkdir(j.home, 0o755))
	mustDo(t, os.Mkdir(j.tmp, 0o755))
	j.env = []string{
		"STAGEDOOR_TOKEN=" + j.token(), "STAGEDOOR_GATEWAY=" + j.https, "SSL_CERT_FILE=" + j.ca, "SHELL=/bin/bash",
		"HOME=" + j.dir, "TMPDIR=" + j.tmp, "STAGEDOOR_PUBLISH_JSON=" + filepath.Join(j.dir, "job.json"), "MARK=made by the job",
		"GORACE=atexit_sleep_ms=0", // the detector would keep every process for a second
	}
	return j
}

// step is a command line that a step of the job runs.
func (j *job) step(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = j.home
	cmd.Env = append(append(os.Environ(), "PATH="+binaries+":"+os.Getenv("PATH")), j.env...)
	return cmd
}

func (j *job) start(script string) *testenv.Process {
	j.t.Helper()
	return testenv.StartCommand(j.t, j.step(script))
}

// held starts a step and returns once the job is held and can be entered.
func (j *job) held(script string) *testenv.Process {
	j.t.Helper()
	p := j.start(script)
	p.WaitFor("The job is held for you until ")
	return p
}

// report is what the agent published last.
func (j *job) report() (r publish.Report) {
	j.t.Helper()
	data, err := os.ReadFile(filepath.Join(j.dir, "job.json"))
	mustDo(j.t, err)
	mustDo(j.t, json.Unmarshal(data, &r))
	return r
}

// ends waits for the end of a job, and looks that it has left nothing.
func (j *job) ends(p *testenv.Process, status int) {
	j.t.Helper()
	if got := p.Wait(); got != status {
		j.t.Errorf("it ended with %d, not %d:\n%s", got, status, p.Output.String())
	}
	j.leavesNothing()
}

// leavesNothing looks until there is nothing: a guard of a job that was killed tells nobody when it is done.
func (j *job) leavesNothing() {
	j.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(testenv.Patience); ; {
		left, err := os.ReadDir(j.tmp)
		mustDo(j.t, err)
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			j.t.Fatalf("left behind: %v", left)
		}
	}
}

// testHeld: a session has what the failing command had, and the job ends with the command's status.
func (j *job) testHeld(t *testing.T) {
	p := j.held("umask 027; ulimit -n 777; exec stagedoor-agent run -- sh -c 'echo out; exit 3'")
	p.WaitFor("Stagedoor: sh -c 'echo out; exit 3' failed with status 3\n")
	p.WaitFor("\nssh -p ")
	want := fmt.Sprintf("made by the job|%s|0027|777|%s|\n", j.home, j.task)
	if got := j.run(`echo "$MARK|$PWD|$(umask)|$(ulimit -n)|$STAGEDOOR_TASK|$STAGEDOOR_TOKEN"`); got != want {
		t.Errorf("the session has %q, the command had %q", got, want)
	}
	var status struct {
		Held   bool
		Reason struct{ Status int }
	}
	mustDo(t, json.Unmarshal([]byte(j.run("stagedoor status --json")), &status))
	if !status.Held || status.Reason.Status != 3 {
		t.Errorf("%+v", status)
	}
	j.run("stagedoor resume")
	j.ends(p, 3)
	if r := j.report(); r.Outcome == nil || r.Outcome.Result != "resumed" || r.SSHCommand == "" {
		t.Errorf("published at the end: %+v", r)
	}
	if strings.Contains(p.Output.String(), j.env[0][len("STAGEDOOR_TOKEN="):]) {
		t.Error("the token is in the log")
	}
}

// testRerun: a rerun that passes turns the job green, when somebody says so.
func (j *job) testRerun(t *testing.T) {
	p := j.held(`exec stagedoor-agent run -- sh -c 'test -e fixed && echo "$MARK"'`)
	if out, err := j.command("ssh", j.target(), "stagedoor rerun").CombinedOutput(); testenv.ExitCode(err) != 1 {
		t.Errorf("the first rerun: %v: %s", err, out)
	}
	out := j.run("touch fixed; stagedoor rerun")
	if out != "made by the job\n" {
		t.Errorf("the second rerun: %q", out)
	}
	j.run("stagedoor resume --status 0")
	j.ends(p, 0)
}

func (j *job) testFailed(t *testing.T) {
	p := j.held("exec stagedoor-agent run --on always -- true")
	j.run("stagedoor fail")
	j.ends(p, 1)
}

// testNobodyComes takes the real clock: the job ends by itself. It does not wait for longer to be let in than for guests.
func (j *job) testNobodyComes(t *testing.T) {
	p := j.start("exec stagedoor-agent run --wait 1s -- sh -c 'until grep -q [s]sh_command ../job.json; do sleep 0.01; done; exit 9'")
	j.ends(p, 9)
	if r := j.report(); r.Outcome == nil || r.Outcome.Result != "expired" {
		t.Errorf("published at the end: %+v", r.Status)
	}
}

// testCancelled: SIGTERM reaches the command, in the same way as without Stagedoor, and nobody holds a job that was cancelled.
func (j *job) testCancelled(t *testing.T) {
	p := j.start(`exec stagedoor-agent run -- sh -c 'trap "echo told; exit 4" TERM; echo ready; while :; do sleep 0.01; done'`)
	p.WaitFor("ready")
	p.WaitFor("ssh -p ")
	p.Cmd.Process.Signal(syscall.SIGTERM)
	j.ends(p, 4)
	if text := p.Output.String(); strings.Count(text, "told") != 1 || strings.Contains(text, "held") {
		t.Errorf("%s", text)
	}
}

// testCancelledInHold: guests read why, and the status is that of the command.
func (j *job) testCancelledInHold(t *testing.T) {
	p := j.held("exec stagedoor-agent run -- sh -c 'exit 6'")
	guest := testenv.StartClient(t, j.command("ssh", "-tt", j.target(), "echo in; sleep 1000"))
	guest.WaitFor("in")
	p.Cmd.Process.Signal(syscall.SIGTERM)
	j.ends(p, 6)
	guest.WaitFor("the job was cancelled")
}

// testKilled: as a CI system ends a job that does not obey: with its whole process group. Nothing of it is left, not even what
// the command had started.
func (j *job) testKilled(t *testing.T) {
	p := j.start(`stagedoor-agent run -- sh -c 'sleep 98765 & echo pid $!; wait'; echo ended`)
	var pid int
	p.WaitUntil("a process ID", func(s string) bool {
		_, rest, ok := strings.Cut(s, "pid ")
		n, _ := fmt.Sscanf(rest, "%d\n", &pid)
		return ok && n == 1 && strings.Contains(rest, "\n")
	})
	p.WaitFor("ssh -p ")
	guest := testenv.StartClient(t, j.command("ssh", j.target(), "sleep 98765 >/dev/null 2>&1 & echo $!; wait"))
	var sleep int
	guest.WaitUntil("a process ID", func(s string) bool {
		n, _ := fmt.Sscanf(s, "%d\n", &sleep)
		return n == 1 && strings.Contains(s, "\n")
	})
	syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	awaitGone(t, pid)
	awaitGone(t, sleep)
	j.leavesNothing()
}

// TestRunLosesGateway: the job is held by its own clocks, and ends with the status of its command.
func TestRunLosesGateway(t *testing.T) {
	w := newWorld(t)
	j := newJob(t, w, "task-1")
	p := j.start("exec stagedoor-agent run --wait 1s -- sh -c 'until test -e go; do sleep 0.01; done; exit 5'")
	p.WaitFor("ssh -p ")
	w.gateway.Kill()
	mustDo(t, os.WriteFile(filepath.Join(j.home, "go"), nil, 0o600))
	j.ends(p, 5)
}

// TestTryJob: a held failure on one's own machine, without a terminal.
func TestTryJob(t *testing.T) {
	cmd, _ := tryCommand(t, "--", "sh", "-c", "echo testing; exit 3")
	out, err := cmd.CombinedOutput()
	if testenv.ExitCode(err) != 3 {
		t.Errorf("%v, want the status of the command", err)
	}
	for _, want := range []string{"testing\n", "failed with status 3\n", "\ndemo in " + cmd.Dir + "\n", "resumed by stagedoor-try"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// testStory is the whole of it on two screens, the job's and the guest's.
func (j *job) testStory(t *testing.T) {
	testenv.Need(t, "tmux")
	step := j.step("stagedoor-agent run -- sh -c 'echo testing; test -e fixed'")
	onScreen := []string{"env", "-C", step.Dir}
	onScreen = append(onScreen, j.env...)
	ci := newScreen(t, &exec.Cmd{Args: append(append(onScreen, "PATH="+binaries+":"+os.Getenv("PATH")), step.Args...)})
	ci.waitFor("testing\n")
	ci.waitFor("failed with status 1")
	ci.waitFor("The job is held for you until")
	guest := newScreen(t, j.command("ssh", j.target()))
	guest.waitFor("status 1")
	ci.waitFor("alice: attached.")
	guest.tmux("send-keys", "Up") // the command is in the history
	guest.waitFor("sh -c 'echo testing; test -e fixed'")
	guest.tmux("send-keys", "C-u")
	guest.typeLine("stagedoor extend 20m")
	guest.typeLine("clear; touch fixed; stagedoor rerun")
	guest.waitFor("testing\n")
	guest.waitFor("it passed")
	guest.typeLine("stagedoor resume --status 0")
	ci.waitFor("ssh ended with 0")
	guest.waitFor("this session ends: resumed")
	guest.waitFor("ssh ended with")
}

// testSteps: one step lets guests in, a later one holds the job, and each verb finds the agent.
func (j *job) testSteps(t *testing.T) {
	out := mustRun(t, j.step("stagedoor-agent connect --detach"))
	if !strings.HasPrefix(out, "ssh -p ") {
		t.Errorf("%q", out)
	}
	t.Cleanup(func() {
		j.step("kill $(cat agent.pid)").Run()
		j.leavesNothing()
	})
	j.run(`echo $PPID >agent.pid`)
	if got := j.run("pwd"); got != j.home+"\n" {
		t.Errorf("%q", got)
	}
	if out := mustRun(t, j.step("stagedoor-agent status")); !strings.Contains(out, j.task) {
		t.Errorf("%q", out)
	}
	p := j.held("exec stagedoor-agent hold")
	mustRun(t, j.step("stagedoor-agent fail"))
	if got := p.Wait(); got != 1 {
		t.Errorf("hold ended with %d", got)
	}
	p = j.held("exec stagedoor-agent hold")
	j.run("stagedoor resume")
	if got := p.Wait(); got != 0 {
		t.Errorf("hold ended with %d", got)
	}
}
