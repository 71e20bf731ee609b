package e2e

import (
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestEndToEnd is a guest's day by ssh -J: nothing is missing, and the agent sees
// to what the gateway cannot.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	agent := w.startAgent([]string{"TASK_VARIABLE=kept"}, "--shell", "/bin/sh", "--host-key", hostKey.File)
	e := w.endToEnd(t, hostKey)
	t.Run("exec", e.testExec)
	t.Run("environment", e.testEnvironment)
	t.Run("scp", e.testSCP)
	t.Run("sftp", e.testSFTP)
	t.Run("rsync", e.testRsync)
	t.Run("git", e.testGit)
	t.Run("many sessions on one connection", e.testControlMaster)
	t.Run("terminal", e.testTerminal)
	t.Run("guest is killed", e.testGuestKilled)
	t.Run("rekey", func(t *testing.T) {
		testRekey(t, e.in(t).command("ssh", "-v", "-o", "RekeyLimit=1M", e.target(), "cat"), 8<<20)
	})
	t.Run("transport", func(t *testing.T) { e.in(t).testAgentTransport() })
	if strings.Contains(agent.Output.String(), "spliced=true") {
		t.Error("some of this was spliced")
	}
}

// TestEndToEndForward is TestForward by ssh -J.
func TestEndToEndForward(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent(nil, "--host-key", hostKey.File)
	w.endToEnd(t, hostKey).testForwards(t)
}

// testAgentTransport looks at the agent through a forwarding to the task, as
// TestTransport does at the gateway.
func (w *world) testAgentTransport() {
	_, gatewayPort, _ := strings.Cut(w.ssh, ":")
	port := testenv.FreeAddress(w.t)
	testenv.StartClient(w.t, w.laptop.in(w.t).ssh("-N", "-L", port+":"+w.task+":22", "-p", gatewayPort, "127.0.0.1"))
	dial(w.t, port).Close()
	testKeyExchange(w.t, port)
	testAudit(w.t, port)
}
