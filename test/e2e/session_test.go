package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestGuest is a guest's day: all of it through one gateway and one agent.
func TestGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.startAgent([]string{"TASK_VARIABLE=kept"}, "--shell", "/bin/sh")
	_, port, _ := strings.Cut(w.ssh, ":")
	agent.WaitFor("\nssh -p " + port + " task-1@127.0.0.1\n")

	t.Run("exec", w.testExec)
	t.Run("environment", w.testEnvironment)
	t.Run("scp", w.testSCP)
	t.Run("sftp", w.testSFTP)
	t.Run("rsync", w.testRsync)
	t.Run("tar", w.testTar)
	t.Run("git", w.testGit)
	t.Run("many sessions on one connection", w.testControlMaster)
	t.Run("terminal", w.testTerminal)
	t.Run("guest is killed", w.testGuestKilled)
	t.Run("by the HTTPS port", w.testHTTPSPort)
	t.Run("by stagedoor proxy", w.testProxy)
}

// in runs the world's helpers under a subtest.
func (w *world) in(t *testing.T) *world {
	sub := *w
	sub.t = t
	return &sub
}

func (w *world) testExec(t *testing.T) {
	w = w.in(t)
	for _, status := range []int{0, 1, 2, 127, 254, 255} {
		err := w.command("ssh", w.target(), "exit "+strconv.Itoa(status)).Run()
		if testenv.ExitCode(err) != status {
			t.Errorf("exit %d: %v", status, err)
		}
	}
	cmd := w.command("ssh", w.target(), "cat; echo to stderr >&2")
	var out, stderr bytes.Buffer
	input := make([]byte, 3<<20)
	rand.Read(input)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), input) {
		t.Errorf("%d bytes came back of %d, or others", out.Len(), len(input))
	}
	if stderr.String() != "to stderr\n" {
		t.Errorf("stderr: %q", stderr.String())
	}
}

// TestTokenStaysSecret reads what a guest could of the agent, as a user without
// privileges.
func TestTokenStaysSecret(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // to become somebody else
	w := newWorld(t)
	mustDo(t, os.Chmod(w.home, 0o777))
	for dir := w.home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		mustDo(t, err)
		mustDo(t, os.Chmod(dir, info.Mode()|0o055))
	}
	mustDo(t, os.Chmod(binaries, 0o755))
	mustDo(t, os.Chmod(w.ca, 0o644))
	cmd := exec.Command(filepath.Join(binaries, "stagedoor-agent"), "connect", "--dir", w.home, "--shell", "/bin/sh")
	cmd.Env = append(os.Environ(), "STAGEDOOR_TOKEN="+w.token(), "STAGEDOOR_GATEWAY="+w.https, "SSL_CERT_FILE="+w.ca)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	p := testenv.StartCommand(t, cmd)
	p.WaitFor("ssh -p ")
	if got := w.run("id -u"); got != "65534\n" {
		t.Fatalf("the agent runs as %q", got)
	}
	read := fmt.Sprintf("cat /proc/%d/environ", p.Cmd.Process.Pid)
	out, err := w.command("ssh", w.target(), read).CombinedOutput()
	if err == nil || strings.Contains(string(out), "eyJ") {
		t.Errorf("%s: %v: a guest can read the token of the agent", read, err)
	}
}

func (w *world) testEnvironment(t *testing.T) {
	w = w.in(t)
	if got := w.run("echo $TASK_VARIABLE $STAGEDOOR_TASK $(pwd)"); got != "kept task-1 "+w.home+"\n" {
		t.Errorf("a session sees %q", got)
	}
	if got := w.run("env"); strings.Contains(got, "STAGEDOOR_TOKEN") || strings.Contains(got, "eyJ") {
		t.Errorf("a session sees the token:\n%s", got)
	}
	if got := w.run("tr '\\0' '\\n' </proc/$PPID/cmdline"); strings.Contains(got, "eyJ") {
		t.Errorf("a session sees the token in the agent's command line:\n%s", got)
	}
}

// someFile writes random bytes to a file.
func someFile(t *testing.T, path string, size int) [32]byte {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	mustDo(t, os.MkdirAll(filepath.Dir(path), 0o755))
	mustDo(t, os.WriteFile(path, data, 0o644))
	return sha256.Sum256(data)
}

func sumOf(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	mustDo(t, err)
	return sha256.Sum256(data)
}

// testSCP is the sentence of the README: scp of a path that is relative to the
// task's directory, in both of scp's protocols.
func (w *world) testSCP(t *testing.T) {
	w = w.in(t)
	want := someFile(t, filepath.Join(w.home, "build", "report.xml"), 2<<20)
	for _, protocol := range []string{"-s", "-O"} {
		here := t.TempDir()
		mustRun(t, w.command("scp", protocol, w.target()+":build/report.xml", here))
		if sumOf(t, filepath.Join(here, "report.xml")) != want {
			t.Errorf("scp %s: the file that came differs", protocol)
		}
		sent := someFile(t, filepath.Join(here, "fix.patch"), 100_000)
		mustRun(t, w.command("scp", protocol, filepath.Join(here, "fix.patch"), w.target()+":build/"))
		if sumOf(t, filepath.Join(w.home, "build", "fix.patch")) != sent {
			t.Errorf("scp %s: the file that was sent differs", protocol)
		}
	}
}

func (w *world) testSFTP(t *testing.T) {
	w = w.in(t)
	want := someFile(t, filepath.Join(w.home, "logs", "test.log"), 1<<20)
	here := t.TempDir()
	cmd := w.command("sftp", "-b", "-", w.target())
	cmd.Stdin = strings.NewReader(fmt.Sprintf("lcd %s\nget logs/test.log\nrename logs/test.log logs/old.log\nls logs\n", here))
	if out := mustRun(t, cmd); !strings.Contains(out, "old.log") {
		t.Errorf("sftp: %s", out)
	}
	if sumOf(t, filepath.Join(here, "test.log")) != want {
		t.Error("the file that came differs")
	}
}

func (w *world) testRsync(t *testing.T) {
	w = w.in(t)
	testenv.Need(t, "rsync")
	here := t.TempDir()
	want := someFile(t, filepath.Join(w.home, "out", "deep", "file"), 300_000)
	remoteShell := testenv.Need(t, "ssh") + " " + strings.Join(w.options(), " ")
	mustRun(t, exec.CommandContext(t.Context(), "rsync", "-a", "-e", remoteShell, w.target()+":out/", here))
	if sumOf(t, filepath.Join(here, "deep", "file")) != want {
		t.Error("the file that came differs")
	}
}

func (w *world) testTar(t *testing.T) {
	w = w.in(t)
	want := someFile(t, filepath.Join(w.home, "tree", "a"), 500_000)
	here := t.TempDir()
	unpack := exec.CommandContext(t.Context(), "tar", "-xf", "-", "-C", here)
	unpack.Stdin = strings.NewReader(w.run("tar -cf - tree"))
	mustRun(t, unpack)
	if sumOf(t, filepath.Join(here, "tree", "a")) != want {
		t.Error("the file that came differs")
	}
}

func (w *world) testGit(t *testing.T) {
	w = w.in(t)
	testenv.Need(t, "git")
	w.run("git init -q repo && cd repo && git config user.email a@example.com && git config user.name a && echo 1 >f && git add f && git commit -qm one")
	here := filepath.Join(t.TempDir(), "clone")
	cmd := exec.CommandContext(t.Context(), "git", "clone", "-q", w.target()+":repo", here)
	cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND="+testenv.Need(t, "ssh")+" "+strings.Join(w.options(), " "))
	mustRun(t, cmd)
	if data, err := os.ReadFile(filepath.Join(here, "f")); err != nil || string(data) != "1\n" {
		t.Errorf("%v: %q", err, data)
	}
}

// testControlMaster counts exit statuses over one connection that many clients
// share: none may be lost.
func (w *world) testControlMaster(t *testing.T) {
	w = w.in(t)
	socket := filepath.Join(t.TempDir(), "mux")
	share := []string{"-o", "ControlPath=" + socket, w.target()}
	mustRun(t, w.command("ssh", append([]string{"-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-Nf"}, share...)...))
	defer w.command("ssh", append([]string{"-O", "exit"}, share...)...).Run()
	type result struct {
		status int
		err    error
		out    []byte
	}
	results := make(chan result)
	const rounds, parallel = 6, 8
	for i := range parallel {
		go func() {
			for j := range rounds {
				status := (i*rounds + j) % 256
				out, err := w.command("ssh", append(share, fmt.Sprintf("echo %d; exit %d", status, status))...).CombinedOutput()
				results <- result{status, err, out}
			}
		}()
	}
	for range rounds * parallel {
		r := <-results
		if testenv.ExitCode(r.err) != r.status || string(r.out) != fmt.Sprintln(r.status) {
			t.Errorf("exit %d: %v, output %q", r.status, r.err, r.out)
		}
	}
}

// testTerminal looks at a real screen: tmux shows what ssh draws.
func (w *world) testTerminal(t *testing.T) {
	w = w.in(t)
	testenv.Need(t, "tmux")
	screen := newScreen(t, w.command("ssh", w.target()))
	prompt := "$"
	if os.Geteuid() == 0 {
		prompt = "#"
	}
	screen.waitFor(prompt)
	screen.typeLine("stty size; echo term=$TERM tty=$(tty)")
	screen.waitFor("30 100\nterm=")
	screen.waitFor("tty=/dev/pts/")
	screen.tmux("resize-window", "-x", "90", "-y", "25")
	// What is typed may overtake the window's size on its way through two programs.
	screen.typeLine(`clear; until [ "$(stty size)" = "25 90" ]; do sleep .1; done; echo resi''zed`)
	screen.waitFor("resized")
	screen.typeLine("clear; yes flood")
	screen.waitFor("flood\nflood")
	screen.tmux("send-keys", "C-c")
	screen.typeLine("s=$?; clear; echo sta''tus $s")
	screen.waitFor("status 130")
	// A ^Z that comes before the job has its process group stops nothing.
	screen.typeLine(`sh -c 'echo rea""dy; exec sleep 1000'`)
	screen.waitFor("ready")
	screen.tmux("send-keys", "C-z")
	screen.waitFor("Stopped")
	// A shell that has not seen the end of a stopped job does not exit: fg waits
	// for it.
	screen.typeLine("kill -9 %1")
	screen.typeLine("fg")
	screen.typeLine("clear; exit 3")
	screen.waitFor("ssh ended with 3")
}

// screen is a terminal of its own tmux server.
type screen struct {
	t      *testing.T
	socket string
}

func newScreen(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	s := &screen{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	var quoted []string
	for _, arg := range cmd.Args {
		quoted = append(quoted, "'"+strings.ReplaceAll(arg, "'", `'\''`)+"'")
	}
	script := strings.Join(quoted, " ") + "; echo ssh ended with $?; exec sleep 1000"
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", script)
	t.Cleanup(func() { exec.Command("tmux", "-S", s.socket, "kill-server").Run() })
	s.tmux("set", "-g", "status", "off")
	s.tmux("resize-window", "-x", "100", "-y", "30")
	return s
}

func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	return mustRun(s.t, exec.CommandContext(s.t.Context(), "tmux", append([]string{"-S", s.socket}, args...)...))
}

func (s *screen) typeLine(line string) {
	s.t.Helper()
	s.tmux("send-keys", "-l", line)
	s.tmux("send-keys", "Enter")
}

// waitFor polls: a screen has no event to wait for.
func (s *screen) waitFor(text string) {
	s.t.Helper()
	deadline := time.After(testenv.Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		shown := s.tmux("capture-pane", "-p")
		if strings.Contains(shown, text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("the screen does not show %q:\n%s", text, shown)
		}
	}
}

// testGuestKilled kills a client the hard way: what it ran on the host is gone
// within seconds.
func (w *world) testGuestKilled(t *testing.T) {
	w = w.in(t)
	cmd := w.command("ssh", "-tt", w.target(), "sleep 98765 & echo pid $$ $!; wait")
	stdin, err := cmd.StdinPipe()
	mustDo(t, err)
	defer stdin.Close()
	p := testenv.StartClient(t, cmd)
	var shell, sleep int
	p.WaitUntil("two process IDs", func(s string) bool {
		n, _ := fmt.Sscanf(s, "pid %d %d", &shell, &sleep)
		return n == 2 && strings.Contains(s, "\n")
	})
	cmd.Process.Kill()
	<-p.Done
	awaitGone(t, shell)
	awaitGone(t, sleep)
}

// awaitGone waits for the end of a process that is not a child of ours.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.After(testenv.Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func (w *world) testHTTPSPort(t *testing.T) {
	w = w.in(t)
	w.ssh = w.https
	if got := w.run("echo there"); got != "there\n" {
		t.Errorf("output %q", got)
	}
}

// testProxy goes where only HTTPS gets out.
func (w *world) testProxy(t *testing.T) {
	w = w.in(t)
	host, port, _ := strings.Cut(w.https, ":")
	proxy := fmt.Sprintf("ProxyCommand=%s proxy --ca-file %s %s %s", filepath.Join(binaries, "stagedoor"), w.ca, host, port)
	want := someFile(t, filepath.Join(w.home, "through-proxy"), 1<<20)
	cmd := w.command("ssh", "-o", proxy, w.target(), "cat through-proxy")
	if got := sha256.Sum256([]byte(mustRun(t, cmd))); got != want {
		t.Error("the file that came differs")
	}
}
