//go:build unix

package job

import (
	"os/exec"
	"syscall"
	"time"
)

// ownSession keeps what kills the process group or hangs up the terminal of a job away from its guard.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// endJob ends the processes that id stands for, as kill(2) takes it.
func endJob(id int, grace time.Duration) {
	if syscall.Kill(id, syscall.SIGTERM) != nil {
		return
	}
	syscall.Kill(id, syscall.SIGCONT) // one that is stopped would not see it
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(grace)
	for {
		select {
		case <-poll.C:
			if syscall.Kill(id, 0) != nil {
				return
			}
		case <-deadline:
			syscall.Kill(id, syscall.SIGKILL)
			return
		}
	}
}
