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
	return client{
		name: "libssh",
		version: func(t *testing.T) string {
			return "libssh " + firstLine(t, compiled(t), "version")
		},
		need: func(t *testing.T) { compiled(t) },
		cells: d.cells(map[string]cell{
			"scp":     works(copies(d.copy("scp-put"), d.copy("scp-get"))),
			"-L unix": not("the library does this with servers alone that call themselves OpenSSH"),
			"Rekey":   works(rekeys(d.run("rekey"), "NEWKEYS")),
		}),
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
