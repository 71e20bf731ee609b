package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func contextFor(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), testenv.Patience)
}

// TestGatewayIsKilled: a gateway that dies and starts again finds its agents
// back, and its host key is the same.
func TestGatewayIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.startAgent(nil)
	w.run("true")
	mustDo(t, w.gateway.Cmd.Process.Kill())
	w.gateway.Wait()
	w.gateway = w.startGateway()
	w.gateway.WaitFor("host registered")
	if got := w.run("echo back"); got != "back\n" {
		t.Errorf("output %q", got)
	}
	select {
	case <-agent.Done:
		t.Errorf("the agent ended: %v", agent.Err)
	default:
	}
}

// TestDrain: a SIGTERM hands the ports to a successor at once, while an open
// session goes on.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	cmd := w.command("ssh", w.target(), "cat")
	stdin, err := cmd.StdinPipe()
	mustDo(t, err)
	stdout, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	lines := bufio.NewReader(stdout)
	echo := func(text string) {
		t.Helper()
		io.WriteString(stdin, text+"\n")
		if got, err := lines.ReadString('\n'); err != nil || got != text+"\n" {
			t.Fatalf("%v: %q", err, got)
		}
	}
	echo("before")
	old := w.gateway
	mustDo(t, old.Cmd.Process.Signal(syscall.SIGTERM))
	old.WaitFor("drain")
	awaitFree(t, w.ssh, w.https, w.private)
	w.gateway = w.startGateway()
	w.gateway.WaitFor("host registered")
	if got := w.run("echo new"); got != "new\n" {
		t.Errorf("by the new gateway: %q", got)
	}
	echo("after")
	stdin.Close()
	mustDo(t, cmd.Wait())
	if status := old.Wait(); status != 0 {
		t.Errorf("the old gateway ended with %d", status)
	}
}

// awaitFree waits until nobody listens.
func awaitFree(t *testing.T, addresses ...string) {
	t.Helper()
	deadline := time.After(testenv.Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, address := range addresses {
		for {
			c, err := net.Dial("tcp", address)
			if err != nil {
				break
			}
			c.Close()
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("somebody still listens on %s", address)
			}
		}
	}
}

// TestSecondSignal ends a drain that would wait for a guest.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	cmd := w.command("ssh", w.target(), "echo started; sleep 1000")
	stdout, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGTERM))
	w.gateway.WaitFor("drain")
	awaitFree(t, w.ssh)
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGTERM))
	w.gateway.Wait()
	if err := cmd.Wait(); err == nil {
		t.Error("the guest was not cut off")
	}
}

// TestReload: SIGHUP takes a key that was added; a file with a mistake changes
// nothing and is named with its line.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	operator := testenv.NewKey(t, dir, "operator")
	keys := filepath.Join(dir, "authorized_keys")
	mustDo(t, os.WriteFile(keys, nil, 0o600))
	w := newWorld(t, "guests:", "  authorized_keys: ["+keys+"]")
	w.startAgent(nil)
	own := w.key
	w.key = operator
	if err := w.command("ssh", w.target(), "true").Run(); testenv.ExitCode(err) != 255 {
		t.Fatalf("a key that is not in the file: %v", err)
	}
	mustDo(t, os.WriteFile(keys, []byte(operator.Line+"\n"), 0o600))
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGHUP))
	w.gateway.WaitFor("reloaded")
	w.run("true")

	config, err := os.ReadFile(w.config)
	mustDo(t, err)
	mustDo(t, os.WriteFile(w.config, append(config, "no_such_key: 1\n"...), 0o600))
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGHUP))
	w.gateway.WaitFor(fmt.Sprintf("%s:%d", w.config, strings.Count(string(config), "\n")+1))
	w.run("true")
	w.key = own
	w.run("true")
}

// TestSilentLink lets the agent's link die without a word: both ends notice it,
// the agent dials again, and the task is reachable.
func TestSilentLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	link := testenv.NewRelay(t, w.https)
	w.startAgent([]string{"STAGEDOOR_GATEWAY=" + link.Addr()})
	w.run("true")
	start := time.Now()
	link.Silence()
	w.gateway.WaitFor("tunnel ended")
	t.Logf("the gateway noticed after %v", time.Since(start).Round(time.Second))
	w.awaitGateway("host registered", 2)
	t.Logf("the agent was back after %v", time.Since(start).Round(time.Second))
	if got := w.run("echo back"); got != "back\n" {
		t.Errorf("output %q", got)
	}
}

// TestFrozenGateway: a gateway whose machine stood still for longer than a guest may
// be silent asks its guests before it gives them up.
func TestFrozenGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:", "  keepalive_interval: 500ms", "  keepalive_count: 8")
	w.startAgent(nil)
	p := testenv.StartClient(t, w.command("ssh", "-v", w.target(), "exec sleep 1000"))
	p.WaitFor("Sending command")
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGSTOP))
	<-time.After(6 * time.Second) // nothing happens, and that is the point
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGCONT))
	p.WaitUntil("three keepalives", func(s string) bool { return strings.Count(s, "rtype keepalive@openssh.com") >= 3 })
	if text := w.gateway.Output.String(); strings.Contains(text, "did not answer keepalives") {
		t.Error("the guest was given up")
	}
}

// TestLameDuckEnds: a gateway that was told to end, and listens on for a while,
// ends by itself after that.
func TestLameDuckEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "drain:", "  lame_duck: 1s")
	mustDo(t, w.gateway.Cmd.Process.Signal(syscall.SIGTERM))
	if status := w.gateway.Wait(); status != 0 {
		t.Errorf("the gateway ended with %d", status)
	}
}
