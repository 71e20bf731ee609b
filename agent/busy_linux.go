package agent

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of the times in /proc: USER_HZ, which is 100 wherever Go runs on Linux.
const clockTick = time.Second / 100

// cpuTime is what the living processes of the session have spent, with those of their children that they have waited for.
func (p *process) cpuTime() (spent time.Duration) {
	for _, pid := range processesOfSession(p.cmd.Process.Pid) {
		spent += cpuTime(strconv.Itoa(pid))
	}
	return spent
}

// cpuTime reads utime, stime, cutime and cstime of proc(5), 0 if the process has ended.
func cpuTime(pid string) (spent time.Duration) {
	b, _ := os.ReadFile("/proc/" + pid + "/stat")
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third one on, the state
	if len(fields) < 15 {
		return 0
	}
	for _, field := range fields[11:15] {
		ticks, _ := strconv.ParseInt(string(field), 10, 64)
		spent += time.Duration(ticks) * clockTick
	}
	return spent
}
