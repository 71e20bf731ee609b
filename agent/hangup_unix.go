//go:build unix

package agent

import (
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sigHangup = unix.SIGHUP
	sigKill   = unix.SIGKILL
)

// killPatience is how long hangup waits for processes that SIGKILL was sent to. Only those stuck in the kernel take longer.
const killPatience = 10 * time.Second

// leaderOfSession makes the child call setsid(2), with and without a terminal: its pid then names everything it starts.
func leaderOfSession(terminal bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Setctty: terminal} // Ctty 0: the child's stdin
}

// inheritNothing sees to it that programs start like those of sshd, however the agent was started. Its own descriptors are
// close-on-exec, those of whoever started it may not be. And a shell that started it in the background made it ignore SIGINT,
// which every program here would inherit, and Ctrl-C would do nothing: only signals with a handler go back to their default.
var inheritNothing = sync.OnceFunc(func() {
	closeOnExec()
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig) // still ignored: nobody reads it
		}
	}
})

// hangup tells every process of the session that its guest has gone, and kills those that are still there after grace. It
// returns when none is left. Processes that made a session of their own (setsid, tmux, daemons) asked to outlive this one, and
// do so as under sshd.
func (p *process) hangup(grace time.Duration) {
	var discard sync.WaitGroup
	defer discard.Wait()
	defer p.closeFiles()
	if p.term != nil {
		p.hangupTerminal()
	} else {
		p.signalSession(sigHangup)
		p.closeInput()
		p.discardOutput(&discard)
	}
	if p.awaitEmpty(grace) {
		return
	}
	for deadline := time.Now().Add(killPatience); time.Now().Before(deadline); {
		p.signalSession(sigKill) // again and again: a process may have forked while we looked
		if p.awaitEmpty(100 * time.Millisecond) {
			return
		}
	}
}

// hangupTerminal closes the terminal. The kernel then sends SIGHUP to the leader and to the job in the foreground; those in the
// background have no other sender when the shell is one that forgets them.
func (p *process) hangupTerminal() {
	foreground, err := p.term.foreground()
	p.term.close()
	for _, pid := range p.members() {
		group, gerr := unix.Getpgid(pid)
		if err == nil && gerr == nil && (pid == p.cmd.Process.Pid || group == foreground) {
			continue
		}
		unix.Kill(pid, sigHangup)
		unix.Kill(pid, unix.SIGCONT)
	}
}

// discardOutput keeps reading the pipes, so that a program which says something as it is hung up on can go on to tidy up.
func (p *process) discardOutput(wg *sync.WaitGroup) {
	for _, f := range []*os.File{p.stdout, p.stderr} {
		f.SetReadDeadline(time.Time{})
		wg.Go(func() { io.Copy(io.Discard, f) })
	}
}

// awaitEmpty waits until the leader has exited and no process of its session is left, for patience at most. There is no event
// for the end of a process that is not our child, so it looks again and again.
func (p *process) awaitEmpty(patience time.Duration) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-p.exited:
	case <-timeout.C:
		return false
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if len(p.members()) == 0 {
			return true
		}
		select {
		case <-time.After(wait):
		case <-timeout.C:
			return false
		}
	}
}

// signalGroup signals the process group of the leader.
func (p *process) signalGroup(sig unix.Signal) error {
	return unix.Kill(-p.cmd.Process.Pid, sig)
}

// signalForeground signals the group in the foreground of the terminal, as a key typed there would.
func (p *process) signalForeground(sig unix.Signal) error {
	if p.term != nil {
		if group, err := p.term.foreground(); err == nil && group > 0 {
			return unix.Kill(-group, sig)
		}
	}
	return p.signalGroup(sig)
}

// signalSession signals the members of the session one by one. Stopped ones are continued, or they would never act on it.
func (p *process) signalSession(sig unix.Signal) {
	for _, pid := range p.members() {
		unix.Kill(pid, sig)
		unix.Kill(pid, unix.SIGCONT)
	}
}

// members lists the living processes of the session.
//
// Without a terminal, those that have none of its pipes as a standard stream any more do not count: whoever started them in
// the background like that, as Visual Studio Code does with its server, wants to find them again, and under sshd does.
func (p *process) members() []int {
	all := processesOfSession(p.cmd.Process.Pid)
	if p.term != nil {
		return all
	}
	return slices.DeleteFunc(all, func(pid int) bool { return pid != p.cmd.Process.Pid && !usesAny(pid, p.pipes[:]) })
}

func exitOf(state *os.ProcessState) exit {
	if state == nil { // somebody else has waited for our child
		return exit{status: 255}
	}
	ws := state.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return exit{status: -1, signal: signalName(unix.Signal(ws.Signal())), core: ws.CoreDump()}
	}
	return exit{status: ws.ExitStatus()}
}

// closeOnExec marks every descriptor of this process but the standard ones.
func closeOnExec() {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if fd := number(name); fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
