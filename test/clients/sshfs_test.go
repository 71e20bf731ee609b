package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// sshfs mounts a directory of the host.
func sshfs() client {
	return client{
		name:     "sshfs",
		programs: true,
		version:  func(t *testing.T) string { return firstLine(t, "sshfs", "--version") },
		need:     needs("sshfs", "ssh"),
		cells: map[string]cell{
			"Download":   works(mounted(spliced, func(g *guest, dir string) check { return downloads(copyFrom(dir)) })).but(fuseNote),
			"Upload":     works(mounted(spliced, func(g *guest, dir string) check { return uploads(copyTo(dir)) })).but(fuseNote),
			"Trees":      works(mounted(spliced, func(g *guest, dir string) check { return mirrors(mirrorTo(dir), copyFrom(dir)) })).but(fuseNote),
			"Resume":     not("a mounted directory has no transfers"),
			"Through -J": works(mounted(through, func(g *guest, dir string) check { return copies(copyTo(dir), copyFrom(dir)) })).but(fuseNote),
			"Comes back": works(sshfsComesBack).but(fuseNote),
		},
	}
}

const fuseNote = "seen where FUSE can be mounted; in a container without /dev/fuse the test says that it looked no further"

// canMount tells whether this user may mount FUSE on this machine. It is no
// skip where not: many containers have no /dev/fuse, and nothing can be done
// about it in there.
func canMount(t *testing.T) bool {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		defer f.Close()
		err = probeMount(t, f)
	}
	if err != nil {
		t.Logf("no FUSE here, so that sshfs is not tried: %v", err)
	}
	return err == nil
}

// mounted mounts the guest's directory and makes a check in there. Paths on the
// host then begin at the mount point.
func mounted(host string, inside func(g *guest, dir string) check) check {
	return func(t *testing.T, g *guest) {
		if dir := g.mount(t, host); dir != "" {
			inside(g, dir)(t, g)
		}
	}
}

// mount returns where the directory of the task is mounted, or nothing where
// there is no FUSE.
func (g *guest) mount(t *testing.T, host string, options ...string) string {
	t.Helper()
	if !canMount(t) {
		return ""
	}
	dir := filepath.Join(g.home, "mount")
	mustDo(t, os.Mkdir(dir, 0o700))
	args := append([]string{"-F", g.openSSHConfig(t), "-f", "-o", "ServerAliveInterval=5"}, options...)
	cmd := g.command(t, testenv.Need(t, "sshfs"), append(args, host+":", dir)...)
	start(t, cmd)
	t.Cleanup(func() { exec.Command("fusermount3", "-uz", dir).Run() })
	eventually(t, "the mount", func() bool {
		_, err := os.Stat(filepath.Join(dir, filepath.Base(g.remote)))
		return err == nil
	})
	return dir
}

// eventually polls for what has no event.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(testenv.Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s does not come", what)
		}
	}
}

func copyTo(dir string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.command(t, "cp", "-r", from, filepath.Join(dir, to))
	}
}

func copyFrom(dir string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.command(t, "cp", "-r", filepath.Join(dir, from), to)
	}
}

// mirrorTo replaces a tree.
func mirrorTo(dir string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.command(t, "sh", "-c", `rm -rf "$2" && cp -r "$1" "$2"`, "sh", from, filepath.Join(dir, to))
	}
}

// sshfsComesBack cuts the connection below a mounted directory.
func sshfsComesBack(t *testing.T, g *guest) {
	relay := g.relayed(t, g.w.gateway)
	dir := g.mount(t, spliced, "-o", "reconnect")
	if dir == "" {
		return
	}
	downloads(copyFrom(dir))(t, g)
	relay.Cut()
	there, want := g.file(t, g.remote, fileSize)
	came := filepath.Join(dir, g.remotePath(filepath.Base(there)))
	eventually(t, "the connection", func() bool {
		_, err := os.ReadFile(came) // fails for as long as nobody has noticed
		return err == nil
	})
	if sumOf(t, came) != want {
		t.Error("the file that came differs")
	}
}
