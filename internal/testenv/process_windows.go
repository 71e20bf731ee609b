package testenv

import "syscall"

// ownGroup is nothing that the tests need on Windows, where they only compile.
func ownGroup() *syscall.SysProcAttr { return nil }
