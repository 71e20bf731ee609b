package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// libSSH is the library in C that KDE, Remmina and others use.
func libSSH() client {
	d := driver(func(t *testing.T) []string { return []string{compiled(t)} })
	run := d.run("exec")
	return client{
		name: "libssh",
		version: func(t *testing.T) string {
			return "libssh " + firstLine(t, compiled(t), "version")
		},
		need: func(t *testing.T) { compiled(t) },
		cells: map[string]cell{
			ed25519:             works(signsIn(ed25519, run)),
			ecdsa:               works(signsIn(ecdsa, run)),
			rsa:                 works(signsIn(rsa, run)),
			"Host key":          works(checksHostKey(run)),
			"Command":           works(runsCommands(run)),
			"Stdin":             works(passesStdin(run)),
			"Terminal":          works(hasTerminal(d.shell)),
			"sftp":              works(copies(d.copy("put"), d.copy("get"))),
			"scp":               works(copies(d.copy("scp-put"), d.copy("scp-get"))),
			"-L":                works(pipes(toTCP, d.pipe("local"))),
			"-L unix":           not("the library does this with servers alone that call themselves OpenSSH"),
			"-D":                not("the library opens channels, but is no SOCKS proxy"),
			"-R":                works(forwardsWhenReady(d.forward("remote"))),
			"Agent":             works(forwardsAgent(d.run("agent"))),
			"X11":               works(forwardsX11(d.run("x11"))),
			"End to end":        works(endToEnd(d.jump)),
			"Rekey":             works(rekeys(d.run("rekey"), "NEWKEYS")),
			"Answers keepalive": works(staysIdle(true, run)),
			"Sends keepalive":   works(staysIdle(false, d.run("keepalive"))),
		},
	}
}

var compiling sync.Mutex

// compiled is the driver, compiled against the libssh of this machine.
func compiled(t *testing.T) string {
	t.Helper()
	compiling.Lock()
	defer compiling.Unlock()
	gcc := testenv.Need(t, "gcc")
	path := filepath.Join(binaries, "libssh_driver")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	probe := exec.CommandContext(t.Context(), gcc, "-E", "-include", "libssh/libssh.h", "-x", "c", "/dev/null", "-o", "/dev/null")
	if probe.Run() != nil {
		testenv.Skip(t, "needs libssh-dev")
	}
	mustRun(t, exec.CommandContext(t.Context(), gcc, "-Wall", "-Wno-deprecated-declarations", "-o", path, script(t, "libssh_driver.c"), "-lssh"))
	return path
}
