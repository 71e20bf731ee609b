//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// inBackground is this program again, where neither the end of the step nor that
// of its terminal reaches it.
func inBackground(args []string, log, ready *os.File) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, append(args, "--detach=false", "--ready=3")...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}
