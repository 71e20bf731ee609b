package testenv

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long anything may take before a test calls it stuck.
const Patience = 60 * time.Second

// Process is a program of ours that runs for a test.
type Process struct {
	Cmd    *exec.Cmd
	Output Output        // both streams
	Done   chan struct{} // closed at its exit
	Err    error         // of Cmd.Wait, to be read after Done

	t testing.TB
}

// StartProcess starts a program with env added to the environment. It ends with
// the test: by SIGTERM, in a process group of its own. One that does not obey, or
// in which the race detector or a panic spoke up, fails the test.
func StartProcess(t testing.TB, env []string, program string, args ...string) *Process {
	t.Helper()
	p := &Process{Cmd: exec.Command(program, args...), Done: make(chan struct{}), t: t}
	p.Cmd.Env = append(os.Environ(), env...)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Output, &p.Output
	p.Cmd.SysProcAttr = ownGroup()
	check(t, p.Cmd.Start())
	go func() {
		p.Err = p.Cmd.Wait()
		close(p.Done)
	}()
	t.Cleanup(p.stop)
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
	text := p.Output.String()
	if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic") {
		p.t.Errorf("%s has a defect", p.Cmd.Path)
	}
	if p.t.Failed() {
		p.t.Logf("output of %s:\n%s", p.Cmd.Path, text)
	}
}

// WaitFor returns when the process has printed text. It fails the test when that
// does not happen.
func (p *Process) WaitFor(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), Patience)
	defer cancel()
	if !p.Output.Wait(ctx, func(s string) bool { return strings.Contains(s, text) }, p.Done) {
		p.t.Fatalf("%s did not print %q; it printed:\n%s", p.Cmd.Path, text, p.Output.String())
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
