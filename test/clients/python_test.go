package clients

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// paramiko is the SSH library that most Python programs use.
func paramiko() client {
	d := pythonDriver("paramiko")
	return client{
		name:    "paramiko",
		version: pythonVersion("paramiko"),
		need:    func(t *testing.T) { python(t, "paramiko") },
		cells: d.cells(map[string]cell{
			"scp":     not("the library has no scp"),
			"-L unix": not("the library knows no channels to unix sockets"),
			"Rekey":   works(rekeys(d.run("rekey"), "new keys")),
		}),
	}
}

// A change that Debian made, for strict key exchange, took out that AsyncSSH lets
// what it has to send wait for the end of a key exchange. OpenSSH's server puts up
// with that.
const asyncSSHRekey = "the AsyncSSH of Debian 12 (2.10.1-2+deb12u2) sends data amid a key exchange, against section 7.1 of RFC 4253, " +
	"and is disconnected. AsyncSSH as published waits. With Debian's, set `rekey_bytes` and `rekey_seconds` beyond the length of your connections: " +
	"they are 1 GiB and an hour otherwise"

// asyncSSH is the library for Python programs on asyncio.
func asyncSSH() client {
	d := pythonDriver("asyncssh")
	return client{
		name:    "AsyncSSH",
		version: pythonVersion("asyncssh"),
		need:    func(t *testing.T) { python(t, "asyncssh") },
		cells: d.cells(map[string]cell{
			"scp":     works(copies(d.copy("scp-put"), d.copy("scp-get"))),
			"-L":      works(forwards(d.forward("local"))),
			"-L unix": works(pipes(toUnix, d.pipe("unix"))),
			"-D":      works(forwardsAnywhere(d.forward("dynamic"))),
			"Rekey":   not(asyncSSHRekey),
		}),
	}
}

func pythonDriver(module string) driver {
	return func(t *testing.T) []string {
		t.Helper()
		return []string{python(t, module), "-W", "ignore", script(t, module+"_driver.py")}
	}
}

// python is an interpreter that has the module. Debian's packages are for the
// system's, which need not be the first in PATH.
func python(t *testing.T, module string) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), path, "-W", "ignore", "-c", "import "+module).Run() == nil {
			return path
		}
	}
	testenv.Skip(t, "needs Python's module "+module)
	return ""
}

func pythonVersion(module string) func(t *testing.T) string {
	return func(t *testing.T) string {
		return module + " " + firstLine(t, python(t, module), "-W", "ignore", "-c", "import "+module+"; print("+module+".__version__)")
	}
}

// script is the path of a file in testdata, for programs that run elsewhere.
func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	mustDo(t, err)
	return path
}
