package agent

import "syscall"

// privately is a net.ListenConfig's Control: it narrows the mode that bind gives a socket's file, which no umask could do for one
// goroutine alone. Where the kernel does not let it, the mode is changed afterwards.
func privately(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { syscall.Fchmod(int(fd), uint32(socketMode)) })
}
