package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// planExec looks whether a command is one that needs no shell.
func (s *session) planExec(p plan) plan {
	if s.guest.server.agent != nil {
		p.verb = verbOf(p.command)
	}
	switch {
	case len(p.verb) == 1 && p.verb[0] == "rerun":
		if args, dir, err := s.rerun(); err == nil {
			return plan{kind: KindExec, command: p.command, direct: args, dir: dir, rerun: true}
		}
	case p.verb != nil:
	case isShell(p.command):
		p.direct = []string{p.command}
	case plainWords(p.command) && !isExecutable(s.guest.server.host.shell):
		p.direct = strings.Fields(p.command)
	}
	return p
}

// shellNames are the shells that guests ask for by name when their own does not start: it is then of no use to start the one by
// the other. So "ssh -t TASK sh" works whatever the files say that the guest's shell reads.
var shellNames = []string{"sh", "bash", "dash", "ash", "zsh", "fish"}

func isShell(command string) bool {
	return slices.Contains(shellNames, strings.TrimPrefix(strings.TrimPrefix(command, "/usr"), "/bin/"))
}

// plainWords tells whether a command means the same without a shell.
func plainWords(command string) bool {
	return plainCommand.MatchString("stagedoor " + strings.TrimSpace(command))
}

// lookPath finds a program as a shell would that runs in dir. It returns the name when there is none: to start it then fails.
func lookPath(name, path, dir string) string {
	if filepath.Base(name) != name {
		if !filepath.IsAbs(name) {
			return filepath.Join(dir, name)
		}
		return name
	}
	for _, parent := range filepath.SplitList(path) {
		if candidate := filepath.Join(parent, name); filepath.IsAbs(candidate) && isExecutable(candidate) {
			return candidate
		}
	}
	return name
}

func isExecutable(path string) bool {
	if runtime.GOOS == "windows" { // where a suffix, which may be left out, says so
		_, err := exec.LookPath(path)
		return err == nil
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
