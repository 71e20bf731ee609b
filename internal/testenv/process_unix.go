//go:build unix

package testenv

import "syscall"

// ownGroup keeps the signals of a terminal away from a process.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
