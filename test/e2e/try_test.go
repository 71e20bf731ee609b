package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// tryCommand is `stagedoor try` in an empty directory, for a user who has
// nothing.
func tryCommand(t *testing.T, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	testenv.Need(t, "scp")
	dir = t.TempDir()
	home := filepath.Join(dir, "home")
	mustDo(t, os.Mkdir(home, 0o700))
	cmd = exec.CommandContext(t.Context(), filepath.Join(binaries, "stagedoor"), append([]string{"try"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "SHELL=/bin/sh", "TERM=xterm"}
	return cmd, dir
}

// TestTry is the first command of the README without a terminal: it proves
// itself and ends.
func TestTry(t *testing.T) {
	t.Parallel()
	cmd, dir := tryCommand(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"✓ ssh  demo runs on Linux, in " + dir, "✓ scp  1 MiB, the same bytes on both ends", "✓ ssh -J  end to end"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// TestTryPrintsWhatWorks types the commands that a try prints, as they are.
func TestTryPrintsWhatWorks(t *testing.T) {
	t.Parallel()
	cmd, dir := tryCommand(t)
	mustDo(t, os.WriteFile(filepath.Join(dir, "artifact.txt"), []byte("made by the task\n"), 0o600))
	terminal, err := pty.Start(cmd)
	mustDo(t, err)
	defer terminal.Close()
	var screen testenv.Output
	done := make(chan struct{})
	go func() {
		io.Copy(&screen, terminal)
		close(done)
	}()
	ctx, cancel := contextFor(t)
	defer cancel()
	if !screen.Wait(ctx, func(s string) bool { return strings.Contains(s, "until you press Ctrl-C") }, done) {
		t.Fatalf("it printed:\n%s", screen.String())
	}
	var commands []string
	for line := range strings.Lines(screen.String()) {
		if strings.HasPrefix(line, "    ") {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	if len(commands) != 3 {
		t.Fatalf("commands %q, want an ssh, an scp and an ssh -J", commands)
	}
	typed := func(line string) string {
		shell := exec.CommandContext(ctx, "bash", "-c", line)
		shell.Dir, shell.Env = t.TempDir(), cmd.Env
		return mustRun(t, shell)
	}
	for _, command := range []string{commands[0], commands[2]} {
		if got := typed(command + " -- pwd"); got != dir+"\n" {
			t.Errorf("%s -- pwd: %q", command, got)
		}
	}
	mustDo(t, os.Mkdir(filepath.Join(dir, "elsewhere"), 0o700))
	typed(strings.TrimSuffix(commands[1], dir) + filepath.Join(dir, "elsewhere"))
	if data, err := os.ReadFile(filepath.Join(dir, "elsewhere", "artifact.txt")); err != nil || string(data) != "made by the task\n" {
		t.Errorf("%s: %v: %q", commands[1], err, data)
	}
	io.WriteString(terminal, "\x03")
	select {
	case <-done:
	case <-time.After(testenv.Patience):
		t.Fatal("it goes on after Ctrl-C")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, screen.String())
	}
}

// TestTryConnect ends with the shell and its exit status.
func TestTryConnect(t *testing.T) {
	t.Parallel()
	cmd, _ := tryCommand(t, "--connect")
	terminal, err := pty.Start(cmd)
	mustDo(t, err)
	defer terminal.Close()
	var screen testenv.Output
	done := make(chan struct{})
	go func() {
		io.Copy(&screen, terminal)
		close(done)
	}()
	ctx, cancel := contextFor(t)
	defer cancel()
	if !screen.Wait(ctx, func(s string) bool { return strings.Contains(s, "# ") || strings.Contains(s, "$ ") }, done) {
		t.Fatalf("no prompt:\n%s", screen.String())
	}
	io.WriteString(terminal, "exit 42\n")
	if err := cmd.Wait(); testenv.ExitCode(err) != 42 {
		t.Errorf("%v, want exit status 42\n%s", err, screen.String())
	}
}

// TestTryWithoutSSH names what is missing and what to do.
func TestTryWithoutSSH(t *testing.T) {
	t.Parallel()
	cmd, dir := tryCommand(t)
	cmd.Env = append(cmd.Env, "PATH="+dir)
	out, err := cmd.CombinedOutput()
	if testenv.ExitCode(err) != 1 || !strings.Contains(string(out), "apt install openssh-client") {
		t.Errorf("%v:\n%s", err, out)
	}
}
