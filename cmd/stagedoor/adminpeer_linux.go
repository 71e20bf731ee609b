package main

import (
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// adminPeer says who is at the other end of a connection to the admin socket, as the
// kernel knows it, "" if it does not.
func adminPeer(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *syscall.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if controlErr != nil || err != nil {
		return ""
	}
	name := "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
	if known, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
		name = known.Username
	}
	return fmt.Sprintf("%s (process %d)", name, cred.Pid)
}
