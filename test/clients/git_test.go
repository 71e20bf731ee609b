package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// git runs ssh, and itself on the host.
func git() client {
	return client{
		name:     "git",
		programs: true,
		version:  func(t *testing.T) string { return firstLine(t, "git", "--version") },
		need:     needs("git", "ssh"),
		cells: map[string]cell{
			"Download":   works(gitClones(spliced)).but("clone"),
			"Upload":     works(gitPushes(spliced)).but("push"),
			"Trees":      not("git moves commits"),
			"Resume":     not("git begins a transfer anew"),
			"Through -J": works(gitPushes(through)),
			"Comes back": not("git begins a transfer anew"),
		},
	}
}

func (g *guest) git(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	identity := []string{"-c", "user.name=guest", "-c", "user.email=guest@example.com", "-c", "init.defaultBranch=main", "-c", "safe.directory=*"}
	cmd := g.command(t, testenv.Need(t, "git"), append(identity, args...)...)
	cmd.Env = append(cmd.Env, "GIT_SSH_COMMAND="+testenv.Need(t, "ssh")+" -F "+g.openSSHConfig(t), "GIT_CONFIG_NOSYSTEM=1")
	return cmd
}

// gitClones clones a repository of the host.
func gitClones(host string) check {
	return func(t *testing.T, g *guest) {
		there := filepath.Join(g.remote, "repository")
		mustDo(t, os.Mkdir(there, 0o755))
		mustRun(t, g.git(t, "-C", there, "init", "-q"))
		_, want := g.file(t, there, fileSize)
		mustRun(t, g.git(t, "-C", there, "add", "."))
		mustRun(t, g.git(t, "-C", there, "commit", "-qm", "one"))
		here := filepath.Join(g.home, "clone")
		mustRun(t, g.git(t, "clone", "-q", host+":"+g.remotePath("repository"), here))
		if sumOf(t, filepath.Join(here, "file1")) != want {
			t.Error("the file that was cloned differs")
		}
	}
}

// gitPushes pushes to an empty repository of the host, which it clones first.
func gitPushes(host string) check {
	return func(t *testing.T, g *guest) {
		mustRun(t, g.git(t, "init", "-q", "--bare", filepath.Join(g.remote, "bare")))
		here := filepath.Join(g.home, "clone")
		mustRun(t, g.git(t, "clone", "-q", host+":"+g.remotePath("bare"), here))
		file, want := g.file(t, here, fileSize)
		mustRun(t, g.git(t, "-C", here, "add", "."))
		mustRun(t, g.git(t, "-C", here, "commit", "-qm", "one"))
		mustRun(t, g.git(t, "-C", here, "push", "-q", "origin", "HEAD:main"))
		out := filepath.Join(g.home, "out")
		mustRun(t, g.git(t, "clone", "-q", "-b", "main", filepath.Join(g.remote, "bare"), out))
		if sumOf(t, filepath.Join(out, filepath.Base(file))) != want {
			t.Error("the file that was pushed differs")
		}
	}
}
