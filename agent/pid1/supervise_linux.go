package pid1

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// notStarted is what a shell says of a program that it could not start.
const notStarted = 126

// supervise runs this program with args in a child, and returns how it ended once it has.
func supervise(args []string) (status int) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	child, err := start(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: start again as a child of PID 1: %v\n", args[0], err)
		return notStarted
	}
	// The environment may hold secrets, which the child takes care of in its own process.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	go passOn(signals, child)
	return reap(child)
}

// start starts the child in a process group of its own, as a key typed on the terminal would otherwise reach it twice: as it is,
// and passed on.
func start(args []string) (pid int, err error) {
	path, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := &exec.Cmd{
		Path: path, Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Foreground: term.IsTerminal(0)},
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// passOn gives the child the signals that are meant for it.
func passOn(signals <-chan os.Signal, child int) {
	for sig := range signals {
		switch sig {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU: // are this process's own
		default:
			unix.Kill(child, sig.(syscall.Signal))
		}
	}
}

// reap waits for whatever ends until the child has.
func reap(child int) (status int) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return notStarted // it has no children, which cannot be
		case pid == child && ws.Signaled():
			return 128 + int(ws.Signal())
		case pid == child:
			return ws.ExitStatus()
		}
	}
}
