package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long anything may take before a test calls it stuck. A machine
// that has much else to do is slow, and no test is about that.
const Patience = 2 * time.Minute

// Process is a program that runs for a test, beside it.
type Process struct {
	Cmd    *exec.Cmd
	Output Output        // both streams, unless the command had others
	Done   chan struct{} // closed at its exit
	Err    error         // of Cmd.Wait, to be read after Done

	t testing.TB
}

// StartProcess starts a program of ours with env added to the environment. It ends
// with the test, as with [StartCommand].
func StartProcess(t testing.TB, env []string, program string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	return StartCommand(t, cmd)
}

// StartCommand starts a program of ours. It ends with the test: by SIGTERM, in a
// process group of its own unless SysProcAttr says more. One that does not obey, or
// in which the race detector or a panic spoke up, fails the test.
func StartCommand(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := start(t, cmd)
	t.Cleanup(func() {
		p.stop()
		p.inspect()
	})
	return p
}

// StartClient starts a program of others. It is killed with the test, with all that
// it started.
func StartClient(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := start(t, cmd)
	t.Cleanup(func() {
		p.Kill()
		p.tell()
	})
	return p
}

func start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, Done: make(chan struct{}), t: t}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.Output
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = ownGroup()
	}
	check(t, cmd.Start())
	go func() {
		p.Err = cmd.Wait()
		close(p.Done)
	}()
	return p
}

func (p *Process) stop() {
	p.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.Done:
	case <-time.After(Patience):
		p.Cmd.Process.Signal(syscall.SIGABRT) // for the stacks
		<-p.Done
		p.t.Errorf("%s does not end on SIGTERM", p.Cmd.Path)
	}
}

// inspect fails the test for what a program of ours must never print.
func (p *Process) inspect() {
	text := p.Output.String()
	if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic") {
		p.t.Errorf("%s has a defect", p.Cmd.Path)
	}
	p.tell()
}

// tell shows what the process printed where the test failed.
func (p *Process) tell() {
	if p.t.Failed() {
		p.t.Logf("output of %s:\n%s", p.Cmd.Path, p.Output.String())
	}
}

// Kill ends the process the hard way, with all that it started, and returns when it
// has ended.
func (p *Process) Kill() {
	killGroup(p.Cmd.Process)
	<-p.Done
}

// Wait returns the exit status of a process that ends by itself. It fails the test
// when that does not happen.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.Done:
	case <-time.After(Patience):
		p.t.Fatalf("%s does not end; it printed:\n%s", p.Cmd.Path, p.Output.String())
	}
	return ExitCode(p.Err)
}

// ExitCode is the exit status that an error of [exec.Cmd.Wait] stands for, -1 if
// none does.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// WaitFor returns when the process has printed text. It fails the test when that
// does not happen.
func (p *Process) WaitFor(text string) {
	p.t.Helper()
	p.WaitUntil(fmt.Sprintf("%q", text), func(s string) bool { return strings.Contains(s, text) })
}

// WaitUntil returns when ok holds for what the process has printed. It fails the
// test when that does not happen, in words that say what was to come.
func (p *Process) WaitUntil(what string, ok func(printed string) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), Patience)
	defer cancel()
	if !p.Output.Wait(ctx, ok, p.Done) {
		p.t.Fatalf("%s did not print %s; it printed:\n%s", p.Cmd.Path, what, p.Output.String())
	}
}

// Output is what a program prints, with a signal at each write. Its zero value is
// ready, and all of it may be used at once from several goroutines.
type Output struct {
	mu      sync.Mutex // guards what follows
	buf     bytes.Buffer
	changed chan struct{}
}

// Write never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.buf.Write(p)
}

// String returns what was printed so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Wait returns true when ok holds for the output, false when ctx or done ended
// before it did. A nil done never ends.
func (o *Output) Wait(ctx context.Context, ok func(string) bool, done <-chan struct{}) bool {
	for {
		text, changed := o.look()
		if ok(text) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		case <-done:
			return ok(o.String())
		}
	}
}

// look returns what was printed, and what is closed when there is more.
func (o *Output) look() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.buf.String(), o.changed
}
