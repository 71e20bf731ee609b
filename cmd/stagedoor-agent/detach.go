package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

// registerPatience is how long anybody waits until guests can enter. Beyond it a
// job goes on without: it has waited for a gateway that does not answer.
const registerPatience = 30 * time.Second

// patience is registerPatience, and no more than a held job would wait for a
// guest.
func (c *config) patience() time.Duration {
	if c.clocks.Wait == 0 {
		return registerPatience
	}
	return min(registerPatience, max(0, c.clocks.Wait))
}

// detach starts connect once more, in the background, and returns once guests
// can enter there.
func (c *config) detach(ctx context.Context, args []string, system *ci.System, stdout, stderr io.Writer) error {
	p, err := placeOf(system)
	if err != nil {
		return err
	}
	if answers(ctx, p.socket()) {
		fmt.Fprintln(stderr, "stagedoor-agent: an agent serves this job already")
		if command := readReport(p).SSHCommand; command != "" {
			fmt.Fprintln(stdout, command)
		}
		return nil
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd, err := inBackground(args, log, theirs)
	if err == nil {
		err = cmd.Start()
	}
	theirs.Close()
	if err != nil {
		return fmt.Errorf("go to the background: %w", err)
	}
	ready.SetReadDeadline(time.Now().Add(c.patience()))
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := bufio.NewReader(ready).ReadString('\n')
	switch {
	case err == nil:
		io.WriteString(stdout, line)
		return cmd.Process.Release()
	case ctx.Err() != nil:
		cmd.Process.Kill()
		cmd.Wait()
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		fmt.Fprintf(stderr, "stagedoor-agent: warning: the gateway %s cannot be reached; the agent goes on trying in the background, and says why in %s\n", c.gateway, p.log())
		return cmd.Process.Release()
	}
	return endedEarly(cmd, log, stderr)
}

// endedEarly shows what an agent in the background had to say before it ended,
// and ends like it.
func endedEarly(cmd *exec.Cmd, log *os.File, stderr io.Writer) error {
	err := cmd.Wait()
	if _, e := log.Seek(0, io.SeekStart); e == nil {
		io.Copy(stderr, log)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return cli.ExitStatus(exit.ExitCode())
	}
	return err
}

// readyFile is where an agent in the background tells that guests can enter.
func readyFile(descriptor int) *os.File {
	if descriptor < 3 {
		return nil
	}
	return os.NewFile(uintptr(descriptor), "ready")
}

// tellReady tells how guests enter once they can, and is gone with the door.
func (d *door) tellReady(ready *os.File) {
	defer ready.Close()
	select {
	case <-d.registered:
		d.mu.Lock()
		command := d.report.SSHCommand
		d.mu.Unlock()
		fmt.Fprintln(ready, command)
	case <-d.done:
	}
}
