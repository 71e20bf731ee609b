package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// awaitExit returns when the child has exited, and leaves it a zombie.
func awaitExit(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return // ECHILD: somebody else has waited for it
		}
	}
}

// processesOfSession finds the living processes of a session in /proc.
func processesOfSession(sid int) []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := unix.Getsid(pid); err == nil && s == sid && !isZombie(name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isZombie reads the state of a process, see proc(5). The command's name stands before it in parentheses and may itself hold any
// character, so the last of these counts.
func isZombie(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return err != nil || len(fields) == 0 || fields[0][0] == 'Z' || fields[0][0] == 'X'
}

// usesAny tells whether a process has one of some files as its stdin, stdout or stderr; true when that cannot be read.
func usesAny(pid int, files []os.FileInfo) bool {
	for fd := range 3 {
		info, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(fd))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // closed, or the process has ended
			}
			return true
		}
		for _, f := range files {
			if f != nil && os.SameFile(f, info) {
				return true
			}
		}
	}
	return false
}
