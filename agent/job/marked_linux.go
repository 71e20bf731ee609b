package job

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// killMarked kills the processes with an entry in the environment that they were started with, until there are none: one could
// start another while it is looked for.
func killMarked(entry string) {
	for range 10 {
		found := false
		for _, pid := range processes() {
			if pid != os.Getpid() && hasEntry(pid, entry) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				found = true
			}
		}
		if !found {
			return
		}
	}
}

func processes() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// hasEntry reads proc(5)'s environ, which is empty for a process that has ended.
func hasEntry(pid int, entry string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+entry+"\x00"))
}
