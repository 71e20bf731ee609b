//go:build linux

package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestExecOutputAndStatus(t *testing.T) {
	h := newTestHost(t, nil)
	h.ssh("", "echo out; echo err >&2; exit 3").wantAll(t, "out\n", "err\n", 3)
	h.ssh("", "pwd").want(t, h.dir+"\n")
	h.ssh("hello", "cat").want(t, "hello")
	h.ssh("", "printf ''").want(t, "")
	h.ssh("echo $0; tty").wantAll(t, "bash\nnot a tty\n", "", 1) // a shell without a terminal reads stdin
	h.ssh("", "echo to-out >/dev/stdout; echo to-err >/dev/stderr").wantAll(t, "to-out\n", "to-err\n", 0)
}

func TestExitStatusIsExact(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	c := h.dial()
	for want := range 256 {
		if got := statusOf(t, run(t, c, fmt.Sprint("exit ", want))); got != want {
			t.Fatalf("exit %d arrived as %d", want, got)
		}
	}
	for _, want := range []int{1, 127, 128, 137, 254} {
		h.ssh("", fmt.Sprint("exit ", want)).wantAll(t, "", "", want)
	}
}

func run(t *testing.T, c *ssh.Client, command string) error {
	t.Helper()
	s, err := c.NewSession()
	must(t, err)
	defer s.Close()
	return s.Run(command)
}

func statusOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*ssh.ExitError](err)
	if !ok {
		t.Fatalf("no exit-status: %v", err)
	}
	return e.ExitStatus()
}

func TestExitSignal(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	for _, name := range []string{"TERM", "KILL", "HUP", "ABRT", "SEGV", "USR1", "PIPE"} {
		e, ok := errors.AsType[*ssh.ExitError](run(t, c, "ulimit -c 0; kill -"+name+" $$"))
		if !ok || e.Signal() != name {
			t.Fatalf("killed by %s, the client heard %v", name, e)
		}
	}
	e, _ := errors.AsType[*ssh.ExitError](run(t, c, "kill -BUS $$"))
	if e == nil || e.Signal() != "BUS@stagedoor" {
		t.Fatalf("killed by BUS, the client heard %v", e)
	}
	h.ssh("", "kill -TERM $$").wantAll(t, "", "", 255)
	// A shell's own way to report a child's end is a plain status and stays one.
	h.ssh("", "exec 2>/dev/null; sh -c 'kill -TERM $$'; exit $?").wantAll(t, "", "", 143)
}

func TestBulkIsComplete(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	data := make([]byte, 6<<20+7)
	rand.Read(data)
	h.file("blob", data)
	h.ssh(string(data), "cat").want(t, string(data))
	h.ssh("", "cat blob; cat blob >&2; exit 9").wantAll(t, string(data), string(data), 9)
	h.ssh(string(data), "cat > copy; wc -c < copy").want(t, fmt.Sprintln(len(data)))
	if h.read("copy") != string(data) {
		t.Fatal("stdin was not binary clean")
	}
}

func TestStdinHalfClose(t *testing.T) {
	h := newTestHost(t, nil)
	h.ssh("b\na\n", "sort; echo after; echo err >&2; exit 5").wantAll(t, "a\nb\nafter\n", "err\n", 5)
}

// A program may close its stdin and live on: what the guest still sends must not stall it or kill it.
func TestProgramClosesStdin(t *testing.T) {
	h := newTestHost(t, nil)
	fifo(t, h, "go")
	big := strings.Repeat("x", 8<<20)
	cmd := h.client("ssh", "task", "exec <&-; echo closed; cat go; exit 6")
	cmd.Stdin = strings.NewReader(big)
	done := start(t, cmd)
	release(t, h, "go", "released\n")
	done(t).wantAll(t, "closed\nreleased\n", "", 6)
	h.ssh(big, "true").want(t, "")
	h.ssh(big, "head -c 3").want(t, "xxx")
}

func TestProgramClosesStdoutEarly(t *testing.T) {
	h := newTestHost(t, nil)
	fifo(t, h, "go")
	done := start(t, h.client("ssh", "task", "echo early; exec >&- 2>&-; read x < go; echo $x > late; exit 4"))
	release(t, h, "go", "word\n")
	done(t).wantAll(t, "early\n", "", 4)
	if h.read("late") != "word\n" {
		t.Fatal("the command did not live on")
	}
}

// As under sshd, a background process that holds stdout keeps the channel open, and one that does not lives on.
func TestBackgroundHoldsStdout(t *testing.T) {
	h := newTestHost(t, nil)
	fifo(t, h, "go")
	done := start(t, h.client("ssh", "task", "(cat go; echo late) & echo early; exit 2"))
	release(t, h, "go", "released\n")
	done(t).wantAll(t, "early\nreleased\nlate\n", "", 2)

	h.ssh("", "sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > pid; echo started").want(t, "started\n")
	pid := h.pid("pid")
	if !alive(pid) {
		t.Fatal("a background process that holds nothing was killed with its clean session")
	}
	syscall.Kill(pid, syscall.SIGKILL)
}

func TestLongCommandLine(t *testing.T) {
	h := newTestHost(t, nil)
	long := strings.Repeat("0123456789", 10<<10)
	h.ssh("", "echo "+long+" | wc -c").want(t, fmt.Sprintln(len(long)+1))
	if got := statusOf(t, run(t, h.dial(), "true "+strings.Repeat(long, 2))); got != 1 {
		t.Errorf("a command too long for the system: status %d, want 1", got)
	}
}

func TestManySessionsOnOneConnection(t *testing.T) {
	h := newTestHost(t, nil)
	h.master()
	var waits []func(*testing.T) result
	for i := range 10 {
		cmd := h.client("ssh", "-o", "ControlMaster=no", "task", fmt.Sprintf("cat; echo err%d >&2; exit %d", i, i))
		cmd.Stdin = strings.NewReader(strings.Repeat(fmt.Sprint(i), 300<<10))
		waits = append(waits, start(t, cmd))
	}
	for i, wait := range waits {
		wait(t).wantAll(t, strings.Repeat(fmt.Sprint(i), 300<<10), fmt.Sprintf("err%d\n", i), i)
	}
}

func TestShellThatDoesNotStart(t *testing.T) {
	h := newTestHost(t, nil)
	must(t, os.Mkdir(h.path("does-not-start"), 0o755))
	h = newTestHost(t, func(s *Server) { s.Shell = h.path("does-not-start") })
	r := h.ssh("", "true; true")
	if r.status != 1 || !strings.Contains(r.stderr, "does-not-start: permission denied") {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
}

// A machine without any shell: what can work does, and what cannot says so.
func TestNoShell(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.Shell = "/nonexistent/sh" })
	for _, args := range [][]string{nil, {"-tt"}} {
		r := h.run(h.client("ssh", append(args, "task")...), "")
		if r.status != 1 || !strings.Contains(r.stderr, "this machine has no shell, /nonexistent/sh is not there") || !strings.Contains(r.stderr, "sftp") {
			t.Errorf("%q: status %d, stderr %q", args, r.status, r.stderr)
		}
	}
	if r := h.ssh("", "echo $HOME"); r.status != 1 || !strings.Contains(r.stderr, "no shell") {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
	h.ssh("", "basename a/b").want(t, "b\n")
	h.ssh("", "/bin/pwd").want(t, h.dir+"\n")
	if r := h.ssh("", "no-such-program"); r.status != 1 || !strings.Contains(r.stderr, "no-such-program") {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
	h.file("a", []byte("alive"))
	if r := h.run(h.client("sftp", "-b", "-", "task"), "get a copy\n"); r.status != 0 {
		t.Errorf("sftp: %+v", r)
	}
}

// Whatever the files say that the guest's shell reads, sh starts.
func TestShByName(t *testing.T) {
	var rc string
	h := newTestHost(t, func(s *Server) {
		rc = filepath.Join(s.Dir, "rc")
		s.Env = append(s.Env, "ENV="+rc)
	})
	for _, file := range []string{rc, h.path(".bashrc")} { // which bash reads when it is run by an SSH server
		must(t, os.WriteFile(file, []byte("exit 7\n"), 0o644))
	}
	if r := h.ssh("", "echo in"); r.status != 7 {
		t.Fatalf("bash reads nothing: %+v", r)
	}
	h.ssh("echo in", "sh").want(t, "in\n")
	r := h.run(h.client("ssh", "-tt", "task", "sh"), "echo i''n; exit 3\n")
	if r.status != 3 || !strings.Contains(r.stdout, "in\r\n") {
		t.Errorf("on a terminal: %+v", r)
	}
}

func TestTaskDirectoryIsGone(t *testing.T) {
	h := newTestHost(t, nil)
	must(t, os.Remove(h.dir))
	if r := h.ssh("", "pwd"); r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, h.dir) {
		t.Fatalf("a command ran elsewhere: %+v", r)
	}
	if r := h.ssh("pwd; exit 0"); r.status != 0 || !strings.Contains(r.stderr, "is not there") {
		t.Fatalf("no shell to look around: %+v", r)
	}
}

// fifo makes a named pipe in the task's directory: commands wait on it for the test.
func fifo(t *testing.T, h *testHost, name string) {
	t.Helper()
	must(t, syscall.Mkfifo(filepath.Join(h.dir, name), 0o600))
}

// release writes to a named pipe once somebody reads it.
func release(t *testing.T, h *testHost, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0))
}
