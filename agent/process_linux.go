package agent

import (
	"bytes"
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
		if s, state := statOf(name); s == sid && state != 'Z' && state != 'X' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// statOf reads the session and the state of a process, see proc(5). The command's name stands in parentheses and may itself
// hold any character, so the fields are counted from the last one of these.
func statOf(pid string) (sid int, state byte) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 4 {
		return 0, 0
	}
	sid, _ = strconv.Atoi(string(fields[3]))
	return sid, fields[0][0]
}
