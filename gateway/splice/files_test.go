package splice

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// tree makes a directory with files of several sizes and returns its name.
func (l *lab) tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for name, size := range map[string]int{"empty": 0, "small": 10, "a/medium": 100_000, "a/b/large": 5 << 20} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, noise(size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sameTree(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.Command("diff", "-r", a, b).CombinedOutput(); err != nil {
		t.Errorf("trees differ: %v: %s", err, out)
	}
}

// TestFiles copies trees there and back with everything that copies over ssh.
func TestFiles(t *testing.T) {
	l := newLab(t)
	for _, tool := range []struct {
		name string
		copy func(t *testing.T, way, from, to string, up bool) *exec.Cmd
	}{
		{"scp", func(t *testing.T, way, from, to string, up bool) *exec.Cmd {
			return l.command("scp", way, append([]string{"-q", "-r"}, remote(from, to, up)...)...)
		}},
		{"scp -O", func(t *testing.T, way, from, to string, up bool) *exec.Cmd {
			return l.command("scp", way, append([]string{"-q", "-O", "-r"}, remote(from, to, up)...)...)
		}},
		{"sftp", func(t *testing.T, way, from, to string, up bool) *exec.Cmd {
			verb := "get"
			if up {
				verb = "put"
			}
			batch := filepath.Join(t.TempDir(), "batch")
			if err := os.WriteFile(batch, []byte(verb+" -r "+from+" "+to+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return l.command("sftp", way, "-q", "-b", batch, hostName)
		}},
		{"rsync", func(t *testing.T, way, from, to string, up bool) *exec.Cmd {
			rsh := "ssh " + strings.Join(l.options(way), " ")
			return exec.Command("rsync", append([]string{"-a", "-e", rsh}, remote(from+"/", to+"/", up)...)...)
		}},
		{"tar", func(t *testing.T, way, from, to string, up bool) *exec.Cmd {
			ssh := strings.Join(l.ssh(way, hostName).Args, " ")
			script := "tar -C " + from + " -c . | " + ssh + " 'mkdir " + to + "; tar -C " + to + " -x'"
			if !up {
				script = "mkdir " + to + "; " + ssh + " tar -C " + from + " -c . | tar -C " + to + " -x"
			}
			return exec.Command("sh", "-c", script)
		}},
	} {
		for _, way := range both {
			t.Run(tool.name+" "+way, func(t *testing.T) {
				t.Parallel()
				testenv.Need(t, strings.Fields(tool.name)[0])
				from := l.tree(t)
				there, back := filepath.Join(t.TempDir(), "there"), filepath.Join(t.TempDir(), "back")
				if got := run(t, tool.copy(t, way, from, there, true), nil); got.status != 0 {
					t.Fatalf("up: %v", got)
				}
				sameTree(t, from, there)
				if got := run(t, tool.copy(t, way, there, back, false), nil); got.status != 0 {
					t.Fatalf("down: %v", got)
				}
				sameTree(t, from, back)
			})
		}
	}
}

func remote(from, to string, up bool) []string {
	if up {
		return []string{from, hostName + ":" + to}
	}
	return []string{hostName + ":" + from, to}
}

// TestSFTPErrors: what sftp says about a missing file, and its status.
func TestSFTPErrors(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"scp", "scp -O"} {
		var got [2]outcome
		for i, way := range both {
			args := append(strings.Fields(name)[1:], hostName+":/nonexistent", t.TempDir())
			got[i] = run(t, l.command("scp", way, args...), nil)
		}
		if got[0] != got[1] || got[0].status == 0 {
			t.Errorf("%s: direct %v, spliced %v", name, got[0], got[1])
		}
	}
}
