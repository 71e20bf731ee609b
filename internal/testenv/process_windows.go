package testenv

import (
	"os"
	"syscall"
)

// On Windows the tests only compile.

func ownGroup() *syscall.SysProcAttr { return nil }
func killGroup(p *os.Process)        { p.Kill() }
