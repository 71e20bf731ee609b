package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestHold: what becomes of a held job and its guests when something else gives way, and by the ways in that TestRun does not take.
func TestHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, test := range map[string]func(*job, *testing.T){
		"end to end":    (*job).testHeldEndToEnd,
		"continue":      (*job).testContinue,
		"agent is lost": (*job).testAgentLost,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newJob(t, w, strings.ReplaceAll(name, " ", "-")), t)
		})
	}
}

// testHeldEndToEnd: the gateway sees none of it.
func (j *job) testHeldEndToEnd(t *testing.T) {
	hostKey := keygen(t, j.dir, "host", "-t", "ed25519")
	j.env = append(j.env, "STAGEDOOR_HOST_KEY="+hostKey.File)
	p := j.held("exec stagedoor-agent run -- sh -c 'exit 8'")
	e := j.endToEnd(t, hostKey)
	if out := e.run("stagedoor extend 40m"); !strings.HasPrefix(out, "stagedoor: the job is held until ") {
		t.Errorf("%q", out)
	}
	guest := testenv.StartClient(t, e.command("ssh", "-tt", e.target()))
	guest.WaitFor("sh -c 'exit 8' failed with status 8")
	if out := e.run("stagedoor fail"); out != "stagedoor: the job ends as failed\n" {
		t.Errorf("%q", out)
	}
	guest.WaitFor("this session ends: ended as failed by alice")
	j.ends(p, 8)
	if strings.Contains(p.Output.String(), "spliced=true") {
		t.Error("some of this was spliced")
	}
}

// testContinue: the working directory is enough to let the job go.
func (j *job) testContinue(t *testing.T) {
	p := j.held("exec stagedoor-agent run -- sh -c 'exit 7'")
	testenv.StartClient(t, j.command("ssh", j.target(), "touch continue")) // the agent may be gone before it has told how that ended
	j.ends(p, 7)
}

// testAgentLost: the gateway tells the guest of a job that was killed.
func (j *job) testAgentLost(t *testing.T) {
	p := j.held("exec stagedoor-agent run -- false")
	guest := testenv.StartClient(t, j.command("ssh", "-tt", j.target(), "echo in; sleep 1000"))
	guest.WaitFor("in")
	syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	guest.WaitFor("the host of task " + j.task + " is lost")
}

// TestHoldWithoutAGateway takes the real clock: the job waits for no longer than it was to, and keeps its status.
func TestHoldWithoutAGateway(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWorld(t), "task-1")
	p := j.held("exec stagedoor-agent run --wait 3s -- sh -c 'exit 9'")
	j.gateway.Cmd.Process.Kill()
	j.ends(p, 9)
}
