// Package job runs the command of a CI job as if nobody stood between the two: the command inherits standard input, output and
// error as they are, signals reach it, and its exit status is told exactly.
//
//	j, err := job.Start(job.Command{Args: []string{"make", "test"}})
//	...
//	status := j.Wait()
//
// It runs in a process group of its own, so that a signal is passed on to all of it, and once: what a CI system sends to its whole
// job would reach it twice otherwise. Where this process is in the foreground of a terminal the command stays in its group, as the
// terminal's signals and its input go to one group alone.
//
// Whatever ends this process, the command does not outlive it: a [Guard] sees to that.
package job

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
)

// Statuses of commands that could not be started, as shells have them.
const (
	NotExecutable = 126
	NotFound      = 127
)

// A Command says what to run. Args is required.
type Command struct {
	Args []string // with the program's name, which is looked for on PATH
	Env  []string // nil: that of this process
	Dir  string   // empty: that of this process

	// Stdin, Stdout and Stderr are those of the command. Nil: those of this process.
	Stdin, Stdout, Stderr *os.File
}

// A Job is a command that runs. Its methods may be called at once, except that Wait is called once.
type Job struct {
	cmd     *exec.Cmd
	grouped bool // it leads a process group of its own
}

// Start starts the command. Of an error that it returns, [StartStatus] makes a status.
func Start(c Command) (*Job, error) {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = orElse(c.Stdin, os.Stdin), orElse(c.Stdout, os.Stdout), orElse(c.Stderr, os.Stderr)
	j := &Job{cmd: cmd, grouped: !inForeground()}
	j.setGroup()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Args[0], err)
	}
	return j, nil
}

func orElse(f, fallback *os.File) *os.File {
	if f == nil {
		return fallback
	}
	return f
}

// Wait waits for the command, and for nothing that it left in the background. It returns the exit status: 128 and the number of
// the signal if one ended it, as shells count.
func (j *Job) Wait() int {
	j.cmd.Wait() // its error is in the state
	return statusOf(j.cmd.ProcessState)
}

// StartStatus is the exit status for an error of Start.
func StartStatus(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return NotFound
	}
	return NotExecutable
}
