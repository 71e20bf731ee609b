package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/hold"
)

// agentProgram finds the other binary, which runs the jobs: beside this one, or
// on PATH.
func agentProgram() (string, error) {
	name := "stagedoor-agent"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("stagedoor-agent is neither beside this program nor on PATH: put it there, or build both with make build")
	}
	return path, nil
}

// runJob runs a command as a CI job would by stagedoor-agent run, and ends with
// its status. Without a terminal it plays the guest as well.
func (t *try) runJob(ctx context.Context, host *agent.Agent) error {
	program, err := agentProgram()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "stagedoor-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca, report := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "job.json")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.certificate}), 0o600); err != nil {
		return err
	}
	if err := t.writeConfig(false); err != nil { // the key that is made for this: it asks for nothing
		return err
	}
	fmt.Fprintf(t.stdout, "A gateway runs on this machine, and this is a CI job. From another terminal you enter it with\n\n    ssh -F %s %s\n\n", shellQuote(t.configFile()), tryTarget)
	args := append([]string{"run", "--when", "always", "--"}, t.command...)
	job := exec.CommandContext(ctx, program, args...)
	job.Env = append(os.Environ(), "STAGEDOOR_GATEWAY="+host.Gateway, "STAGEDOOR_TOKEN="+host.Token, "STAGEDOOR_CA_FILE="+ca, "STAGEDOOR_PUBLISH_JSON="+report)
	job.Stdin, job.Stdout, job.Stderr = t.stdin, t.stdout, t.stderr
	// At a terminal Ctrl-C reaches it as well.
	job.Cancel = func() error { return job.Process.Signal(syscall.SIGTERM) }
	if err := job.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	played := make(chan struct{})
	go func() {
		defer close(played)
		if f, ok := t.stdin.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
			t.playGuest(ctx, report)
		}
	}()
	err = job.Wait()
	cancel()
	<-played
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return exitStatus(exit.ExitCode())
	}
	return err
}

// playGuest enters the job once it is held, looks around and lets it go.
func (t *try) playGuest(ctx context.Context, report string) {
	if !awaitHeld(ctx, report) {
		return
	}
	for _, command := range []string{"echo $STAGEDOOR_TASK in $(pwd)", "stagedoor resume"} {
		out, err := t.quiet(ctx, t.ssh, tryTarget, command)
		if err != nil {
			if ctx.Err() == nil {
				fmt.Fprintf(t.stderr, "stagedoor: %v\n", err)
			}
			return
		}
		fmt.Fprintf(t.stdout, "\nguest$ ssh %s %s\n%s\n", tryTarget, shellQuote(command), out)
	}
	fmt.Fprintln(t.stdout, "Run it in a terminal to be the guest yourself.")
}

// awaitHeld looks at what the agent publishes until the job is held; false when
// that will not be.
func awaitHeld(ctx context.Context, report string) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var s hold.Status
		if data, err := os.ReadFile(report); err == nil && json.Unmarshal(data, &s) == nil && s.Held {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}
