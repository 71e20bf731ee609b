package clients

import (
	"maps"
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

// cellsOf are the cells of a client that runs commands and shells: what all of them
// can do, and those that are its own.
func cellsOf(run runner, shell func(t *testing.T, g *guest) *exec.Cmd, own map[string]cell) map[string]cell {
	cells := map[string]cell{
		ed25519:             works(signsIn(ed25519, run)),
		ecdsa:               works(signsIn(ecdsa, run)),
		rsa:                 works(signsIn(rsa, run)),
		"Host key":          works(checksHostKey(run)),
		"Command":           works(runsCommands(run)),
		"Stdin":             works(passesStdin(run)),
		"Terminal":          works(hasTerminal(shell)),
		"Answers keepalive": works(staysIdle(true, run)),
	}
	maps.Copy(cells, own)
	return cells
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
