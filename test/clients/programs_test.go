package clients

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A hostCopier is a copier to or from one of the hosts in the guest's ssh_config.
type hostCopier func(t *testing.T, g *guest, host, from, to string) *exec.Cmd

func (c hostCopier) on(host string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd { return c(t, g, host, from, to) }
}

// resumes lets copies begin with a first half in place.
func resumes(put, get copier) check {
	return func(t *testing.T, g *guest) {
		here, _ := g.file(t, g.home, fileSize)
		resumesTo(t, here, filepath.Join(g.remote, "sent"), put(t, g, here, g.remotePath("sent")))
		there, _ := g.file(t, g.remote, fileSize)
		came := filepath.Join(g.home, "came")
		resumesTo(t, there, came, get(t, g, g.remotePath(filepath.Base(there)), came))
	}
}

// resumesTo runs a copy to where a first half is already, another one than the
// source's, so that it shows in the result who wrote it.
func resumesTo(t *testing.T, source, target string, copy *exec.Cmd) {
	t.Helper()
	half := randomBytes(fileSize / 2)
	mustDo(t, os.WriteFile(target, half, 0o644))
	mustRun(t, copy)
	want, err := os.ReadFile(source)
	mustDo(t, err)
	got, err := os.ReadFile(target)
	mustDo(t, err)
	if !bytes.HasPrefix(got, half) {
		t.Error("it began anew")
	} else if !bytes.Equal(got[len(half):], want[len(half):]) {
		t.Errorf("it went on with %d other bytes", len(got)-len(half))
	}
}

// mirrors copies a directory there, changes it and copies it again, and then back.
func mirrors(put, get copier) check {
	return func(t *testing.T, g *guest) {
		source, back := filepath.Join(g.home, "source"), filepath.Join(g.home, "back")
		mustDo(t, os.MkdirAll(filepath.Join(source, "deep", "er"), 0o755))
		g.file(t, source, 1000)
		g.file(t, filepath.Join(source, "deep", "er"), 100_000)
		mustRun(t, put(t, g, source, g.remotePath("tree")))
		sameTree(t, source, filepath.Join(g.remote, "tree"))
		mustDo(t, os.RemoveAll(filepath.Join(source, "deep", "er")))
		g.file(t, filepath.Join(source, "deep"), 2000)
		mustRun(t, put(t, g, source, g.remotePath("tree")))
		sameTree(t, source, filepath.Join(g.remote, "tree"))
		mustRun(t, get(t, g, g.remotePath("tree"), back))
		sameTree(t, source, back)
	}
}

func sameTree(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), testenv.Need(t, "diff"), "-r", a, b).CombinedOutput(); err != nil {
		t.Errorf("the trees differ: %v\n%s", err, out)
	}
}

// rsync runs ssh, and itself on the host.
func rsync() client {
	put, get := rsyncPut(), rsyncGet()
	return client{
		name:     "rsync",
		programs: true,
		version:  func(t *testing.T) string { return firstLine(t, "rsync", "--version") },
		need:     needs("rsync", "ssh"),
		cells: map[string]cell{
			"Download":   works(downloads(get.on(spliced))),
			"Upload":     works(uploads(put.on(spliced))),
			"Trees":      works(mirrors(rsyncPut("--delete").on(spliced), rsyncGet("--delete").on(spliced))),
			"Resume":     works(resumes(rsyncPut("--append").on(spliced), rsyncGet("--append").on(spliced))),
			"Through -J": works(copies(put.on(through), get.on(through))),
			"Comes back": not("it ends, and is run again (Resume)"),
		},
	}
}

// rsyncPut and rsyncGet copy what is in a directory, when it is one.
func rsyncPut(options ...string) hostCopier {
	return func(t *testing.T, g *guest, host, from, to string) *exec.Cmd {
		if isDirectory(from) {
			from += "/"
		}
		return g.rsync(t, append(options, from, host+":"+to)...)
	}
}

func rsyncGet(options ...string) hostCopier {
	return func(t *testing.T, g *guest, host, from, to string) *exec.Cmd {
		if isDirectory(filepath.Join(g.w.home, from)) {
			from += "/"
		}
		return g.rsync(t, append(options, host+":"+from, to)...)
	}
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (g *guest) rsync(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	shell := testenv.Need(t, "ssh") + " -F " + g.openSSHConfig(t)
	return g.command(t, testenv.Need(t, "rsync"), append([]string{"-a", "-e", shell}, args...)...)
}

// lftp speaks sftp through ssh.
func lftp() client {
	put, get := lftpCopy("put %s -o %s"), lftpCopy("get %s -o %s")
	return client{
		name:     "lftp",
		programs: true,
		version:  func(t *testing.T) string { return firstLine(t, "lftp", "--version") },
		need:     needs("lftp", "ssh"),
		cells: map[string]cell{
			"Download":   works(downloads(get.on(spliced))),
			"Upload":     works(uploads(put.on(spliced))),
			"Trees":      works(mirrors(lftpCopy("mirror -R --delete %s %s").on(spliced), lftpCopy("mirror --delete %s %s").on(spliced))),
			"Resume":     works(resumes(lftpCopy("put -c %s -o %s").on(spliced), lftpCopy("get -c %s -o %s").on(spliced))),
			"Through -J": works(copies(put.on(through), get.on(through))),
			"Comes back": works(lftpComesBack),
		},
	}
}

// lftpCopy runs one command of lftp's.
func lftpCopy(command string) hostCopier {
	return func(t *testing.T, g *guest, host, from, to string) *exec.Cmd {
		cmd := g.lftp(t, host)
		cmd.Args = append(cmd.Args, "-e", "set cmd:fail-exit yes; "+fmt.Sprintf(command, from, to)+"; bye")
		return cmd
	}
}

func (g *guest) lftp(t *testing.T, host string) *exec.Cmd {
	t.Helper()
	g.write(t, ".lftprc", fmt.Sprintf("set sftp:connect-program \"ssh -a -x -F %s\"\nset net:reconnect-interval-base 1\n", g.openSSHConfig(t)))
	// A password keeps it from asking for one. Nobody is shown it.
	return g.command(t, testenv.Need(t, "lftp"), "sftp://"+task+":none@"+host)
}

// lftpComesBack cuts the connection between two commands.
func lftpComesBack(t *testing.T, g *guest) {
	relay := g.relayed(t, g.w.gateway)
	cmd := g.lftp(t, spliced)
	stdin, err := cmd.StdinPipe()
	mustDo(t, err)
	var out testenv.Output
	cmd.Stdout = &out
	start(t, cmd)
	fetch := func() {
		t.Helper()
		there, want := g.file(t, g.remote, fileSize)
		name := filepath.Base(there)
		fmt.Fprintf(stdin, "get %s\n!echo got %s\n", g.remotePath(name), name)
		if !out.Wait(t.Context(), func(s string) bool { return strings.Contains(s, "got "+name) }, after(testenv.Patience)) {
			t.Fatal("it does not come back")
		}
		if sumOf(t, filepath.Join(g.home, name)) != want {
			t.Error("the file that came differs")
		}
	}
	fetch()
	relay.Cut()
	fetch()
	io.WriteString(stdin, "bye\n")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if opened, _, _ := relay.Counts(); opened < 2 {
		t.Errorf("%d connections", opened)
	}
}

// after is closed when d has passed.
func after(d time.Duration) <-chan struct{} {
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	return done
}

// autossh runs ssh again whenever it ends.
func autossh() client {
	const keeps = "autossh keeps a connection and copies nothing"
	return client{
		name:     "autossh",
		programs: true,
		version:  func(t *testing.T) string { return firstLine(t, "autossh", "-V") },
		need:     needs("autossh", "ssh"),
		cells: map[string]cell{
			"Download":   not(keeps),
			"Upload":     not(keeps),
			"Trees":      not(keeps),
			"Resume":     not(keeps),
			"Through -J": works(autosshComesBack(through)),
			"Comes back": works(autosshComesBack(spliced)),
		},
	}
}

// autosshComesBack cuts the connection under a forwarding.
func autosshComesBack(host string) check {
	return func(t *testing.T, g *guest) {
		relay := g.relayed(t, g.w.gateway)
		listen := testenv.FreeAddress(t)
		cmd := g.command(t, testenv.Need(t, "autossh"), "-M", "0", "-F", g.openSSHConfig(t), "-N",
			"-o", "ExitOnForwardFailure=yes", "-L", listen+":"+g.w.digests.tcp, host)
		cmd.Env = append(cmd.Env, "AUTOSSH_GATETIME=0", "AUTOSSH_PATH="+testenv.Need(t, "ssh"))
		start(t, cmd)
		checkDigest(t, testenv.DialEventually(t, "tcp", listen))
		relay.Cut()
		awaitConnections(t, relay, 2)
		checkDigest(t, testenv.DialEventually(t, "tcp", listen))
	}
}

func awaitConnections(t *testing.T, relay *testenv.Relay, n int) {
	t.Helper()
	deadline := after(testenv.Patience)
	for {
		opened, _, changed := relay.Counts()
		if opened >= n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d connections, want %d", opened, n)
		}
	}
}
