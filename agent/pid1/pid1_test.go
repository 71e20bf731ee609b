//go:build linux

package pid1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// role says what this program is when it is not the test: the first process, whose child it then is.
const role = "PID1_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "first": // processes whose parent has ended are inherited by a subreaper as by PID 1
		os.Setenv(role, "child")
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		os.Exit(supervise(os.Args))
	case "child":
		os.Exit(child(os.Args[1]))
	}
}

// child does what a test asks for, and returns its exit status.
func child(what string) int {
	switch what {
	case "orphans":
		return orphans()
	case "signal":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGTERM)
		fmt.Println("ready")
		<-signals
		return 42
	case "killed":
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "echo":
		io.Copy(os.Stdout, os.Stdin)
	}
	return 0
}

// orphans makes some, and its own child beside them, and returns 0 when all are gone without a trace.
func orphans() int {
	out, err := exec.Command("sh", "-c", "for i in 1 2 3; do sh -c 'exit 1' & echo $!; done; (sleep 0.2 & echo $!)").Output()
	if err != nil {
		return 1
	}
	for _, pid := range strings.Fields(string(out)) {
		for tick, deadline := time.NewTicker(5*time.Millisecond), time.Now().Add(time.Minute); ; <-tick.C {
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				return 2
			}
		}
	}
	return 0
}

func first(t *testing.T, what string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], what)
	cmd.Env = append(os.Environ(), role+"=first")
	cmd.Stderr = os.Stderr
	return cmd
}

func TestOrphansAreReaped(t *testing.T) {
	if err := first(t, "orphans").Run(); err != nil {
		t.Error(err)
	}
}

func TestSignalIsPassedOn(t *testing.T) {
	cmd := first(t, "signal")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q %v", line, err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 42 {
		t.Errorf("status %d", status)
	}
}

func TestStatusOfASignal(t *testing.T) {
	cmd := first(t, "killed")
	cmd.Run()
	if status := cmd.ProcessState.ExitCode(); status != 128+9 {
		t.Errorf("status %d", status)
	}
}

func TestStreamsAreTheChilds(t *testing.T) {
	cmd := first(t, "echo")
	cmd.Stdin = strings.NewReader("hello")
	if out, err := cmd.Output(); string(out) != "hello" || err != nil {
		t.Errorf("%q %v", out, err)
	}
}
