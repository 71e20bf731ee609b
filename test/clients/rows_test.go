package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// clients are the rows, in the order of the table.
func clients() []client {
	return []client{openSSH(), putty(), dropbear(), paramiko(), asyncSSH(), libSSH(), curl(), ssh2(), sshfs(), lftp(), rsync(), git(), autossh()}
}

// needs is the need of a client that consists of programs.
func needs(programs ...string) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for _, p := range programs {
			testenv.Need(t, p)
		}
	}
}

// firstLine is how a program begins to tell its version.
func firstLine(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	if line == "" {
		t.Fatalf("%s %s says nothing: %v", program, args, err)
	}
	return strings.TrimSpace(line)
}

// write makes a file in the guest's home directory.
func (g *guest) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(g.home, name)
	mustDo(t, os.WriteFile(path, []byte(content), 0o700))
	return path
}
