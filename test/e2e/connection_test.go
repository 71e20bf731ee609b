package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestConnection is what OpenSSH does to a connection as a whole.
func TestConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:", "  keepalive_interval: 500ms", "  keepalive_count: 200")
	w.startAgent(nil)
	t.Run("persists", func(t *testing.T) { w.in(t).testControlPersist() })
	t.Run("without a session", func(t *testing.T) { w.in(t).testNoSession() })
	t.Run("output that nobody reads", func(t *testing.T) { w.in(t).testNobodyReads() })
	t.Run("keepalive", func(t *testing.T) { w.in(t).testKeepalive() })
	t.Run("dead gateway", func(t *testing.T) { w.in(t).testServerAlive() })
}

// testControlPersist: the first ssh leaves a master in the background, later
// ones use its connection, and it ends when told to.
func (w *world) testControlPersist() {
	t := w.t
	socket := filepath.Join(t.TempDir(), "mux")
	persist := []string{"-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", "ControlPath=" + socket}
	command := func(args ...string) *exec.Cmd {
		return w.command("ssh", append(persist, args...)...)
	}
	// The master keeps stderr, so output must be read by nobody who waits for its end.
	mustDo(t, quietly(command(w.target(), "true")))
	check, err := command("-O", "check", w.target()).CombinedOutput()
	if err != nil || !strings.Contains(string(check), "Master running") {
		t.Fatalf("-O check: %v: %s", err, check)
	}
	// SSH_CONNECTION has the client's port: the same one is the same connection.
	first, second := mustRun(t, command(w.target(), "echo $SSH_CONNECTION")), mustRun(t, command(w.target(), "echo $SSH_CONNECTION"))
	if first != second || strings.TrimSpace(first) == "" {
		t.Errorf("two connections: %q and %q", first, second)
	}
	if err := command(w.target(), "exit 42").Run(); testenv.ExitCode(err) != 42 {
		t.Errorf("exit 42: %v", err)
	}
	left := strings.Count(w.gateway.Output.String(), "guest left")
	if out, err := command("-O", "exit", w.target()).CombinedOutput(); err != nil {
		t.Errorf("-O exit: %v: %s", err, out)
	}
	w.awaitGateway("guest left", left+1)
}

// testNobodyReads is ssh TASK yes | head -1: when head has gone ssh says so to the
// host, the program there ends, and so does ssh.
func (w *world) testNobodyReads() {
	t := w.t
	cmd := w.command("ssh", w.target(), "echo $$; exec yes")
	stdout, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	var pid int
	if _, err := fmt.Fscan(stdout, &pid); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	if err := cmd.Wait(); testenv.ExitCode(err) < 0 {
		t.Errorf("ssh had to be killed: %v", err)
	}
	awaitGone(t, pid)
}

// quietly runs a command that leaves another behind, which keeps its descriptors.
func quietly(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, nil
	return cmd.Run()
}

// awaitGateway waits until the gateway has printed text so many times.
func (w *world) awaitGateway(text string, times int) {
	w.t.Helper()
	w.gateway.WaitUntil(fmt.Sprintf("%q %d times", text, times), func(s string) bool { return strings.Count(s, text) >= times })
}

// testNoSession: -N signs in, opens nothing, stays, and ends on Ctrl-C.
func (w *world) testNoSession() {
	in := strings.Count(w.gateway.Output.String(), "guest signed in")
	left := strings.Count(w.gateway.Output.String(), "guest left")
	p := testenv.StartClient(w.t, w.command("ssh", "-v", "-N", w.target()))
	w.awaitGateway("guest signed in", in+1)
	p.WaitFor("keepalive@openssh.com") // so it has been there for a while
	if strings.Contains(p.Output.String(), "Sending command") || strings.Contains(p.Output.String(), "[session]") {
		w.t.Error("it opened a session")
	}
	mustDo(w.t, p.Cmd.Process.Signal(syscall.SIGINT))
	if status := p.Wait(); status != 255 && status != 130 && status != -1 {
		w.t.Errorf("ended with %d", status)
	}
	w.awaitGateway("guest left", left+1)
}

// testKeepalive: the client of an idle session asks for signs of life and gets
// them. The other way round it is seen above.
func (w *world) testKeepalive() {
	p := testenv.StartClient(w.t, w.command("ssh", "-vvv", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=100", w.target(), "echo started; exec sleep 1000"))
	p.WaitFor("started")
	answered := func(s string) bool {
		_, after, _ := strings.Cut(s, "started\n")
		// 80 is SSH_MSG_GLOBAL_REQUEST, 81 and 82 are the answers; a session that
		// has begun has no other use for them.
		answers := strings.Count(after, "receive packet: type 81") + strings.Count(after, "receive packet: type 82")
		return strings.Count(after, "send packet: type 80") >= 3 && answers >= 3
	}
	p.WaitUntil("keepalives", answered)
}

// testServerAlive: a client whose gateway went silent notices it.
func (w *world) testServerAlive() {
	link := testenv.NewRelay(w.t, w.ssh)
	w.ssh = link.Addr()
	p := testenv.StartClient(w.t, w.command("ssh", "-v", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1", w.target(), "exec sleep 1000"))
	p.WaitFor("Entering interactive session") // from here on it asks
	link.Silence()
	if status := p.Wait(); status != 255 || !strings.Contains(p.Output.String(), "not responding") {
		w.t.Errorf("status %d: %s", status, p.Output.String())
	}
}
