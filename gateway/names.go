package gateway

import (
	"net/netip"
	"strings"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// domain is the name under which guests may type tasks, as in
// task-1234.terminal.example.com: the host of Address when that is a name.
func (s *Settings) domain() string {
	host, _, err := tunnel.ParseAddress(s.Address)
	if err != nil {
		return ""
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	return strings.ToLower(host)
}

// taskNamed returns the task that a user name or the target of a jump names,
// bare or as TASK.DOMAIN. What cannot be a task, such as the login of whoever
// jumps, is none.
func (s *Settings) taskNamed(name string) (auth.TaskID, bool) {
	if domain := s.domain(); domain != "" {
		label := len(name) - len(domain) - 1
		if label > 0 && name[label] == '.' && strings.EqualFold(name[label+1:], domain) {
			name = name[:label]
		}
	}
	task, err := auth.ParseTaskID(name)
	return task, err == nil
}

// jumpHost is what guests give to ssh -J behind the user name.
func (s *Settings) jumpHost() string { return shortAddress(s.Address, "22") }

// publicHost is how URLs name the HTTPS port. It needs no quoting in a shell, is
// empty when the settings do not say, and never comes from a request.
func (s *Settings) publicHost() string { return shortAddress(s.HTTPSAddress, "443") }

// shortAddress is host:port without the port that is usual, empty for what is no
// address.
func shortAddress(address, usual string) string {
	host, port, err := tunnel.ParseAddress(address)
	if err != nil {
		return ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == usual {
		return host
	}
	return host + ":" + port
}

// sshTo is the command that takes a guest to a task through the gateway.
func (s *Settings) sshTo(task string) string {
	host, port, _ := tunnel.ParseAddress(s.Address)
	if port == "22" {
		return "ssh " + task + "@" + host
	}
	return "ssh -p " + port + " " + task + "@" + host
}
