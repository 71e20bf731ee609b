package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestAgentEndsWithItsTime: when the deadline comes the agent says so once, and
// ends with the status that stands for it.
func TestAgentEndsWithItsTime(t *testing.T) {
	w := newWorld(t)
	a := spawn(t, []string{"STAGEDOOR_TOKEN=" + w.token("--deadline", "3s")}, "stagedoor-agent",
		"connect", "--gateway", w.https, "--ca-file", w.ca, "--dir", w.home)
	<-a.done
	exit, ok := errors.AsType[*exec.ExitError](a.err)
	if !ok || exit.ExitCode() != 4 {
		t.Errorf("the agent ended with %v, want status 4", a.err)
	}
	if out := a.out.String(); strings.Count(out, "the time of task "+w.task+" is over") != 1 || strings.Contains(out, "tunnel lost") {
		t.Errorf("it says:\n%s", out)
	}
}
