package job

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

func ownSession(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func endJob(id int, _ time.Duration) {
	if p, err := os.FindProcess(id); err == nil {
		p.Kill()
	}
}
