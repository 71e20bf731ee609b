package agent

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/internal/printable"
)

// setControlEnviron tells programs what they may know of the job, and guests who may act upon it how: the verbs are on their PATH.
func (s *session) setControlEnviron(env *environ) {
	srv := s.guest.server
	env.set(GuestVariable, printable.Text(s.guest.identity(), maxFarewell))
	if srv.agent == nil {
		return
	}
	if s.term != nil {
		env.setDefault("debian_chroot", string(srv.Task)) // the prompt of bash shows it on Debian and Ubuntu
	}
	if r := srv.agent.status().Reason; r != nil {
		env.set("STAGEDOOR_COMMAND", r.Command.String())
		env.set("STAGEDOOR_STATUS", fmt.Sprint(r.Status))
	}
	if srv.socket == nil || !s.guest.mayControl() {
		return
	}
	env.set(ControlVariable, srv.socket.path)
	if srv.agent.Program != "" {
		env.set("PATH", srv.socket.bin()+string(os.PathListSeparator)+env.get("PATH"))
	}
}

// greeting is what a guest reads first who gets a shell on a terminal: what happened, where this is, when it ends and what can be
// done about it, on eight lines at most. It is empty when nothing is known of a job.
func (s *session) greeting() string {
	a := s.guest.server.agent
	if a == nil {
		return ""
	}
	status := a.status()
	lines := s.situation(status)
	if lines == nil {
		return ""
	}
	if status.Held && s.guest.mayControl() {
		lines = append(lines,
			"  stagedoor extend 30m   to stay longer",
			"  stagedoor resume       to let the job go on",
			"  stagedoor fail         to end it as failed")
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// longestLine is in bytes: commands can be whole scripts.
const longestLine = 200

func (s *session) situation(status hold.Status) (lines []string) {
	host, _ := os.Hostname()
	switch {
	case status.Held:
		lines = append(lines, "stagedoor: "+printable.Text(status.Reason.String(), longestLine))
	case status.Command != nil:
		lines = append(lines, "stagedoor: the job runs "+printable.Text(status.Command.String(), longestLine))
	default:
		return nil
	}
	lines = append(lines, fmt.Sprintf("You are in %s on %s, the host of %s.", s.guest.server.host.dir, host, status.Task))
	if !status.Held {
		return lines
	}
	return append(lines, fmt.Sprintf("The job is held until %s, for %s; while you are active for longer, until %s at most.",
		clock(status.Deadline), roughly(time.Until(status.Deadline)), clock(status.Hard)))
}
