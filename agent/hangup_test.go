//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// programs lists the living processes that run with the environment of this host's task, the guests' programs.
func (h *testHost) programs() (pids []int) {
	mark := []byte("TESTHOST=" + h.home + "\x00")
	entries, err := os.ReadDir("/proc")
	must(h.t, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !alive(pid) {
			continue
		}
		if env, err := os.ReadFile("/proc/" + e.Name() + "/environ"); err == nil && bytes.Contains(append(env, 0), mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func commandOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

func kill(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGKILL))
}

// nothingLeft waits until no session and no program of the host is left. A process has no environment to be known by for a
// moment in execve(2), so programs alone could miss one that a session still waits for.
func (h *testHost) nothingLeft() {
	h.t.Helper()
	eventually(h.t, "the end of all programs", func() bool { return h.Sessions() == 0 && len(h.programs()) == 0 })
}

func TestGuestIsKilled(t *testing.T) {
	for _, test := range []struct{ name, options, command string }{
		{"exec", "-T", "trap 'echo hup >> log; exit' HUP; echo $$ > pid; sleep 1000 & sleep 1000 & wait"},
		{"terminal", "-tt", "trap 'echo hup >> log; exit' HUP; echo $$ > pid; sleep 1000 & sleep 1000 & wait"},
		{"pipeline", "-T", "sleep 1000 | sleep 1000 | { echo $$ > pid; sleep 1000; }"},
		{"stopped", "-tt", "sleep 1000 & kill -STOP $!; echo $$ > pid; kill -STOP $$"},
		{"jobs", "-tt", "set -m; sleep 1000 & sleep 1000 & echo $$ > pid; wait"},
		{"jobs without a terminal", "-T", "set -m; sleep 1000 & sleep 1000 & echo $$ > pid; wait"},
		{"stdout is held by a background process", "-T", "sleep 1000 & echo $$ > pid"},
		{"writing", "-T", "echo $$ > pid; cat /dev/zero"},
		{"writing to a terminal", "-tt", "echo $$ > pid; cat /dev/zero"},
		{"reading", "-tt", "echo $$ > pid; cat"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHost(t, nil)
			cmd := h.client("ssh", test.options, "task", test.command)
			stdin, err := cmd.StdinPipe()
			must(t, err)
			defer stdin.Close()
			must(t, cmd.Start())
			h.pid("pid")
			must(t, cmd.Process.Kill())
			cmd.Wait()
			h.nothingLeft()
			if strings.Contains(test.command, "log") && h.read("log") != "hup\n" {
				t.Errorf("SIGHUP did not arrive once: %q", h.read("log"))
			}
			eventually(t, "the end of the session", func() bool { return h.Sessions() == 0 })
		})
	}
}

// An interactive shell has its jobs in groups of their own.
func TestInteractiveGuestIsKilled(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.HangupGrace = 100 * time.Millisecond })
	s, _, cmd := h.terminal("task")
	s.expect(`[$#] $`)
	s.send("sleep 1000 & nohup sleep 1000 & (trap '' HUP; sleep 1000) & cat\n")
	s.expectForeground(t, h, "cat")
	must(t, cmd.Process.Kill())
	cmd.Wait()
	h.nothingLeft()
}

// Whoever ignores SIGHUP is killed after the grace and not before.
func TestGraceAndKill(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.HangupGrace = 300 * time.Millisecond })
	cmd := h.client("ssh", "task", "trap '' HUP; echo $$ > pid; read x; echo still here; sleep 0.05; echo tidied > tidy; sleep 1000")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	must(t, cmd.Start())
	h.pid("pid")
	start := time.Now()
	must(t, cmd.Process.Kill())
	cmd.Wait()
	h.nothingLeft()
	if lived := time.Since(start); lived < 300*time.Millisecond {
		t.Errorf("killed after %v", lived)
	}
	if h.read("tidy") != "tidied\n" {
		t.Error("a program that said something after the guest had gone did not live on to tidy up")
	}
}

// What makes a session of its own outlives the guest, as under sshd: tmux lives by that.
func TestDaemonOutlivesGuest(t *testing.T) {
	h := newTestHost(t, nil)
	cmd := h.client("ssh", "task", "setsid sh -c 'echo $$ > daemon; exec sleep 1000' & read x < /dev/null; echo $$ > pid; sleep 1000")
	must(t, cmd.Start())
	h.pid("pid")
	daemon := h.pid("daemon")
	must(t, cmd.Process.Kill())
	cmd.Wait()
	eventually(t, "the end of the session", func() bool { return h.Sessions() == 0 })
	if !alive(daemon) {
		t.Fatal("the daemon was killed")
	}
	kill(t, daemon)
	h.nothingLeft()
}

// Closing one channel of a connection hangs up on its program alone.
func TestChannelIsClosed(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	one, two := sleeping(t, h, c, "one"), sleeping(t, h, c, "two")
	one.Close()
	eventually(t, "the end of the first", func() bool { return !alive(h.pid("one")) })
	if !alive(h.pid("two")) {
		t.Fatal("the other session was hung up on too")
	}
	two.Close()
	h.nothingLeft()
}

func sleeping(t *testing.T, h *testHost, c *ssh.Client, name string) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	must(t, err)
	must(t, s.Start("echo $$ > "+name+"; exec sleep 1000"))
	h.pid(name)
	return s
}

func TestServerCloses(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	sleeping(t, h, c, "one")
	sleeping(t, h, c, "two")
	if h.Sessions() != 2 {
		t.Errorf("%d sessions", h.Sessions())
	}
	must(t, h.Close())
	if left := h.programs(); len(left) != 0 {
		t.Errorf("left behind: %d", len(left))
	}
}
