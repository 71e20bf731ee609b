package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTimes returns the CPU time, to the nanosecond, of every process in the
// trees below roots that runs the same program as its root: sshd forks one
// process or two for a connection, ssh -J a second ssh. The commands that
// they run for a guest are not counted.
func cpuTimes(roots []int) (map[int]time.Duration, error) {
	table, err := processTable()
	if err != nil {
		return nil, err
	}
	times := make(map[int]time.Duration)
	for _, root := range roots {
		program := table[root].program
		if program == "" {
			return nil, fmt.Errorf("process %d is gone", root)
		}
		for pid, entry := range table {
			// OpenSSH 9.8 split sshd into sshd, sshd-session and sshd-auth.
			if strings.HasPrefix(entry.program, program) && table.below(pid, root) {
				times[pid] = processClock(pid)
			}
		}
	}
	return times, nil
}

// processClock returns the CPU time of one process, all its threads and those
// that have ended; zero when the process is gone. It is the clock that
// clock_getcpuclockid(3) names, and unlike /proc/PID/stat does not count in
// hundredths of a second.
func processClock(pid int) time.Duration {
	const schedulerClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedulerClock), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

type processEntry struct {
	parent  int
	program string
}

type processes map[int]processEntry

// below says whether pid is root or a descendant of it.
func (t processes) below(pid, root int) bool {
	for pid > 1 {
		if pid == root {
			return true
		}
		pid = t[pid].parent
	}
	return false
}

// processTable reads who is whose parent. Processes that end meanwhile are
// left out.
func processTable() (processes, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	table := make(processes, len(stats))
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if pid, entry, ok := parseStat(string(data)); ok {
			table[pid] = entry
		}
	}
	return table, nil
}

// parseStat reads "PID (program) state parent …": proc(5). The program may
// hold spaces and parentheses.
func parseStat(line string) (pid int, e processEntry, ok bool) {
	head, rest, found := strings.Cut(line, " (")
	end := strings.LastIndex(rest, ") ")
	if !found || end < 0 {
		return 0, e, false
	}
	fields := strings.Fields(rest[end+2:])
	if len(fields) < 2 {
		return 0, e, false
	}
	pid, err1 := strconv.Atoi(head)
	parent, err2 := strconv.Atoi(fields[1])
	return pid, processEntry{parent, rest[:end]}, err1 == nil && err2 == nil
}
