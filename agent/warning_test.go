//go:build linux

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
)

// TestWarning: a guest reads a line on the plain screen. A full-screen program is left alone but for the title and the bell, and
// what has no terminal altogether.
func TestWarning(t *testing.T) {
	h := newTestHost(t, nil)
	n := hold.Notice{End: time.Now().Add(5 * time.Minute), Left: 5 * time.Minute}
	warn := func(n hold.Notice) { h.notify(func(g *guest) notice { return g.warning(n) }) }
	wait := start(t, h.client("ssh", "task", "touch ready; until test -e done; do sleep 0.05; done"))
	eventually(t, "a command runs", func() bool { _, err := os.Stat(filepath.Join(h.dir, "ready")); return err == nil })
	s, _, _ := h.terminal("task")
	s.expect(`[$#] $`)
	warn(n)
	s.expect(`^\a\r\nstagedoor: the job is held for 5m more, until \d\d:\d\d:\d\d \S+\. To stay: stagedoor extend 30m\r\n$`)
	n.Idle = true
	warn(n)
	s.expect(`^\a\r\nstagedoor: nothing happens here: the job is held for 5m more, until .*\r\n$`)
	n.Idle, n.Final = false, true
	warn(n)
	s.expect(`This end cannot be put off\.\r\n$`)
	s.send("printf '\\033[?1049h%s%s' in side; exec cat\n")
	s.expect("inside$")
	n.Final = false
	warn(n)
	s.expect(`^\x1b\]2;stagedoor: ends in 5m: stagedoor extend 30m\a\a$`)
	h.file("done", nil)
	wait(t).want(t, "")
}

// TestWarningWithoutPermission: who cannot extend the hold is told what can be done nevertheless.
func TestWarningWithoutPermission(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.Grant.Permissions = []string{auth.PermitPTY} })
	s, _, _ := h.terminal("task")
	s.expect(`[$#] $`)
	for idle, want := range map[bool]string{true: "Anything that you do here puts it off.", false: ""} {
		h.notify(func(g *guest) notice { return g.warning(hold.Notice{Left: time.Minute, Idle: idle}) })
		line := s.expect(`stagedoor: (.*)\r\n`)[1]
		if strings.Contains(line, "extend") || !strings.HasSuffix(line, ". "+want) && want != "" {
			t.Errorf("idle %v: %q", idle, line)
		}
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 400 * time.Millisecond: "0s", 59600 * time.Millisecond: "60s", 90 * time.Second: "90s", 91 * time.Second: "2m",
		5*time.Minute - time.Second: "5m", 59 * time.Minute: "59m", time.Hour: "1h00m", 90*time.Minute + 59*time.Second: "1h30m", 25 * time.Hour: "25h00m",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}
