//go:build unix

package job_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/stagedoor/stagedoor/agent/job"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// start starts sh with its standard output on a pipe, from which lines are read.
func start(t *testing.T, script string) (*job.Job, *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	j, err := job.Start(job.Command{Args: []string{"sh", "-c", script}, Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(testenv.Patience))
	return j, bufio.NewReader(r)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("after %q: %v", s, err)
	}
	return strings.TrimSpace(s)
}

func TestStatus(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 255": 255, "kill -KILL $$": 137, "kill -SEGV $$": 139, "kill -TERM $$": 143,
	} {
		j, _ := start(t, script)
		if got := j.Wait(); got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
	}
}

func TestStartStatus(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(notExecutable, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]int{"no-such-program-here": job.NotFound, "/no/such/program": job.NotFound, notExecutable: job.NotExecutable} {
		_, err := job.Start(job.Command{Args: []string{program}})
		if err == nil || job.StartStatus(err) != want || !strings.Contains(err.Error(), program) {
			t.Errorf("%s: %v, status %d, want %d", program, err, job.StartStatus(err), want)
		}
	}
}

// TestSignalReachesAll: also what the command started, and once.
func TestSignalReachesAll(t *testing.T) {
	j, out := start(t, `trap 'echo outer' TERM
		sh -c 'trap "echo inner; exit" TERM; echo ready; while :; do sleep 0.01; done' & wait; wait; exit 3`)
	if got := line(t, out); got != "ready" {
		t.Fatal(got)
	}
	j.Signal(syscall.SIGTERM)
	got := map[string]int{}
	got[line(t, out)]++
	got[line(t, out)]++
	rest, _ := io.ReadAll(out)
	if got["outer"] != 1 || got["inner"] != 1 || len(rest) > 0 {
		t.Errorf("%v and then %q", got, rest)
	}
	if status := j.Wait(); status != 3 {
		t.Errorf("status %d", status)
	}
}

// TestIgnoredSignals: as under nohup, where the command has to survive as well.
func TestIgnoredSignals(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	for _, s := range job.Signals() {
		if s == syscall.SIGHUP {
			t.Error("SIGHUP would be passed on although this process ignores it")
		}
	}
}

// TestTerminal: a command in the foreground of a terminal reads from it, and Ctrl-C is its own.
func TestTerminal(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "JOB_TEST_ROLE=parent", "JOB_TEST_SCRIPT="+
		`trap 'echo interrupted; exit 7' INT; read line; echo "read $line"; while :; do sleep 0.01; done`)
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	terminal.SetReadDeadline(time.Now().Add(testenv.Patience))
	out := bufio.NewReader(terminal)
	io.WriteString(terminal, "word\n")
	for line(t, out) != "read word" {
	}
	io.WriteString(terminal, "\x03")
	for !strings.HasSuffix(line(t, out), "interrupted") {
	}
	rest, _ := io.ReadAll(out)
	if strings.Contains(string(rest), "interrupted") {
		t.Errorf("interrupted twice: %q", rest)
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("status %d", got)
	}
}

// parent runs a script as a job under guard, and ends with its status.
func parent() {
	guard, err := job.StartGuard(os.Args[0], "guard")
	if err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
	if dir := os.Getenv("JOB_TEST_REMOVE"); dir != "" {
		guard.Remove(dir)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, job.Signals()...)
	j, err := job.Start(job.Command{Args: []string{"sh", "-c", os.Getenv("JOB_TEST_SCRIPT")}})
	if err != nil {
		os.Exit(99)
	}
	guard.Watch(j)
	go func() {
		for s := range signals {
			j.Signal(s)
		}
	}()
	status := j.Wait()
	guard.Unwatch()
	guard.Close()
	os.Exit(status)
}

// TestGuard: when the process that runs a job is killed with its whole group, nothing is left: neither the job, be it one that
// minds no SIGTERM at first, nor what it has in the background, nor the files.
func TestGuard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `private "with" words`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOB_TEST_ROLE=parent", "JOB_TEST_REMOVE="+dir, "JOB_TEST_SCRIPT="+
		`trap 'echo told' TERM; (sleep 1000) & echo ready; while :; do wait; done`)
	cmd.Stdout = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.SetReadDeadline(time.Now().Add(testenv.Patience))
	out := bufio.NewReader(r)
	if got := line(t, out); got != "ready" {
		t.Fatal(got)
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	if got := line(t, out); got != "told" {
		t.Errorf("%q", got)
	}
	if _, err := io.ReadAll(out); err != nil { // its end: nobody holds the pipe any more
		t.Errorf("something of the job lives: %v", err)
	}
	awaitGone(t, dir)
}

// awaitGone looks again and again: a guard has nobody whom it could tell.
func awaitGone(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(testenv.Patience); ; {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is left", path)
		}
	}
}

// TestGuardLeavesTheBackgroundAlone: what a job that ended by itself has left is none of the guard's business.
func TestGuardLeavesTheBackgroundAlone(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOB_TEST_ROLE=parent", "JOB_TEST_SCRIPT=exec 3<&0; (cat <&3 >&2) & exit 5")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var background testenv.Output
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cmd.Process.Wait()
	copied := make(chan struct{})
	go func() {
		io.Copy(&background, r)
		close(copied)
	}()
	io.WriteString(in, "alive\n")
	in.Close()
	<-copied
	if !strings.Contains(background.String(), "alive") {
		t.Errorf("it was killed: %q", background.String())
	}
}
