//go:build linux

package agent

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestCopyFiles(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	data := make([]byte, 3<<20+1)
	rand.Read(data)
	h.file("build/report.xml", data)
	for _, protocol := range []string{"-s", "-O"} {
		t.Run("scp "+protocol, func(t *testing.T) {
			local := h.path("report" + protocol)
			h.run(h.client("scp", protocol, "task:build/report.xml", local), "").want(t, "")
			if got, err := os.ReadFile(local); err != nil || string(got) != string(data) {
				t.Fatalf("%d bytes arrived of %d: %v", len(got), len(data), err)
			}
			must(t, os.Chmod(local, 0o640))
			h.run(h.client("scp", protocol, "-p", local, "task:back"+protocol), "").want(t, "")
			if h.read("back"+protocol) != string(data) {
				t.Fatal("uploaded differently")
			}
			info, err := os.Stat(filepath.Join(h.dir, "back"+protocol))
			if err != nil || info.Mode().Perm() != 0o640 {
				t.Fatalf("mode %v, %v", info.Mode(), err)
			}
			h.run(h.client("scp", protocol, "-r", "task:build", h.path("tree"+protocol)), "").want(t, "")
			if got, err := os.ReadFile(h.path("tree" + protocol + "/report.xml")); err != nil || len(got) != len(data) {
				t.Fatalf("tree: %v", err)
			}
			if r := h.run(h.client("scp", protocol, "task:missing", local), ""); r.status != 1 {
				t.Errorf("a missing file: %+v", r)
			}
		})
	}
}

func TestSFTP(t *testing.T) {
	h := newTestHost(t, nil)
	h.file("a", []byte("first\n"))
	h.file("b", []byte("second\n"))
	h.file("partial", []byte(strings.Repeat("local\n", 10)))
	must(t, os.WriteFile(h.path("local"), []byte(strings.Repeat("local\n", 1000)), 0o600))
	batch := `pwd
ls -l
df
rename a b
ln b c
ln -s c d
mkdir sub
put -f ` + h.path("local") + ` sub/remote
chmod 600 sub/remote
reput ` + h.path("local") + ` partial
get sub/remote ` + h.path("again") + `
rm c
ls sub
`
	r := h.run(h.client("sftp", "-b", "-", "task"), batch)
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	if !strings.Contains(r.stdout, "Remote working directory: "+h.dir+"\n") || !strings.Contains(r.stdout, "Avail") {
		t.Errorf("pwd, df: %s", r.stdout)
	}
	if got := h.read("b"); got != "first\n" { // posix-rename replaces
		t.Errorf("rename: %q", got)
	}
	if got, _ := os.ReadFile(h.path("again")); string(got) != strings.Repeat("local\n", 1000) {
		t.Errorf("put and get: %d bytes", len(got))
	}
	if got := h.read("partial"); got != strings.Repeat("local\n", 1000) {
		t.Errorf("reput: %d bytes", len(got))
	}
	verbose := h.client("sftp", "-vv", "-o", "LogLevel=DEBUG2", "-b", "-", "task")
	log := h.run(verbose, "pwd\n").stderr
	for _, extension := range []string{"posix-rename@openssh.com", "statvfs@openssh.com", "hardlink@openssh.com", "fsync@openssh.com", "limits@openssh.com"} {
		if !strings.Contains(log, extension) {
			t.Errorf("%s is not offered", extension)
		}
	}
}

func TestRsync(t *testing.T) {
	h := newTestHost(t, nil)
	for i := range 50 {
		h.file(fmt.Sprintf("tree/%d/file", i), []byte(strings.Repeat(fmt.Sprint(i), 5000)))
	}
	remote := "ssh -F " + h.path("config")
	for range 2 { // the second finds everything there
		cmd := exec.CommandContext(t.Context(), "rsync", "-a", "--checksum", "-e", remote, "task:tree/", h.path("copy"))
		h.run(cmd, "").want(t, "")
		cmd = exec.CommandContext(t.Context(), "rsync", "-a", "--delete", "-e", remote, h.path("copy")+"/", "task:back")
		h.run(cmd, "").want(t, "")
	}
	h.run(exec.CommandContext(t.Context(), "diff", "-r", filepath.Join(h.dir, "tree"), filepath.Join(h.dir, "back")), "").want(t, "")
}

func TestTarPipes(t *testing.T) {
	h := newTestHost(t, nil)
	data := make([]byte, 2<<20)
	rand.Read(data)
	h.file("tree/blob", data)
	r := h.ssh("", "tar cf - tree")
	if r.status != 0 {
		t.Fatalf("%+v", r.stderr)
	}
	h.ssh(r.stdout, "mkdir out && tar xf - -C out").want(t, "")
	if h.read("out/tree/blob") != string(data) {
		t.Fatal("the tree arrived differently")
	}
}

func TestGit(t *testing.T) {
	testenv.Need(t, "git")
	h := newTestHost(t, nil)
	h.ssh("", "git init -q --bare repo.git").want(t, "")
	git := func(args ...string) result {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh -F "+h.path("config"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		cmd.Dir = h.home
		return h.run(cmd, "")
	}
	git("clone", "-q", "task:repo.git", "work")
	must(t, os.WriteFile(h.path("work/file"), []byte("content\n"), 0o600))
	git("-C", "work", "add", "file").want(t, "")
	git("-C", "work", "commit", "-q", "-m", "message").want(t, "")
	git("-C", "work", "push", "-q", "origin", "HEAD:main").want(t, "")
	git("clone", "-q", "-b", "main", "task:repo.git", "again").want(t, "")
	if got, err := os.ReadFile(h.path("again/file")); err != nil || string(got) != "content\n" {
		t.Fatalf("%q %v", got, err)
	}
}
