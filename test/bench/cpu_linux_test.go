package main

import (
	"os"
	"os/exec"
	"testing"
)

func TestParseStat(t *testing.T) {
	pid, entry, ok := parseStat("42 (a (b) c) S 7 42 42 0 -1")
	if !ok || pid != 42 || entry != (processEntry{7, "a (b) c"}) {
		t.Errorf("got %d, %+v, %v", pid, entry, ok)
	}
	for _, line := range []string{"", "42", "42 (a", "x (a) S 7", "42 (a) S"} {
		if _, _, ok := parseStat(line); ok {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestCPUTimesCountsForksAndNoCommands(t *testing.T) {
	// A shell with a shell and a cat below it.
	cmd := exec.Command("sh", "-c", `sh -c "cat; true"; true`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	// A byte has come back: cat runs.
	if _, err := stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	times, err := cpuTimes([]int{cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	if len(times) != 2 || times[cmd.Process.Pid] == 0 {
		t.Errorf("CPU times of two shells: %v", times)
	}
}

func TestCPUTimesOfNobody(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if times, err := cpuTimes([]int{cmd.Process.Pid}); err == nil {
		t.Errorf("a process that ended has CPU times %v", times)
	}
	if times, err := cpuTimes([]int{os.Getpid()}); err != nil || times[os.Getpid()] <= 0 {
		t.Errorf("of this process: %v, %v", times, err)
	}
}
