//go:build unix

package job

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that the command gets when this process does.
var passedOn = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// Signals are those that are to be passed on by Signal: without the ones that this process was started to ignore, as nohup makes it
// ignore SIGHUP. The command ignores them as well then.
func Signals() []os.Signal {
	var signals []os.Signal
	for _, s := range passedOn {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	return signals
}

// inForeground tells whether this process is in the foreground of its controlling terminal.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

func (j *Job) setGroup() {
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: j.grouped}
}

// ID is what kill(2) takes for all of the job: the negative number of its process group, or its process where it has no group of
// its own.
func (j *Job) ID() int {
	if j.grouped {
		return -j.cmd.Process.Pid
	}
	return j.cmd.Process.Pid
}

// Signal passes a signal on. Those of a terminal have reached a command in its foreground already.
func (j *Job) Signal(s os.Signal) {
	number, ok := s.(syscall.Signal)
	if !ok || !j.grouped && (number == syscall.SIGINT || number == syscall.SIGQUIT) {
		return
	}
	syscall.Kill(j.ID(), number) // of one that has ended: no such process
}

func statusOf(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
