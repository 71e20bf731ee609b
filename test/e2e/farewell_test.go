package e2e

import (
	"strings"
	"testing"
)

// TestAgentEndsWithItsTime: when the deadline comes the agent says so once, and
// ends with the status that stands for it.
func TestAgentEndsWithItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := spawn(t, []string{"STAGEDOOR_TOKEN=" + w.token("--deadline", "10s")}, "stagedoor-agent",
		"connect", "--gateway", w.https, "--ca-file", w.ca, "--dir", w.home)
	if status := a.Wait(); status != 4 {
		t.Errorf("the agent ended with %d, want status 4", status)
	}
	if out := a.Output.String(); strings.Count(out, "the time of task "+w.task+" is over") != 1 || strings.Contains(out, "tunnel lost") {
		t.Errorf("it says:\n%s", out)
	}
}
