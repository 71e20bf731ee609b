package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// curl is what most programs do with libssh2.
func curl() client {
	const copiesOnly = "curl copies files"
	const never = "curl is never idle: it ends with its transfer"
	return client{
		name:    "curl (libssh2)",
		version: func(t *testing.T) string { return firstLine(t, needCurl(t), "-V") },
		need:    func(t *testing.T) { needCurl(t) },
		cells: map[string]cell{
			ed25519:             works(signsIn(ed25519, curlFetch)),
			ecdsa:               works(signsIn(ecdsa, curlFetch)),
			rsa:                 not("libssh2 before 1.11 signs with RSA keys by SHA-1 alone, which nobody should take any more"),
			"Host key":          works(checksHostKey(curlFetch)),
			"Command":           not(copiesOnly),
			"Stdin":             not(copiesOnly),
			"Terminal":          not(copiesOnly),
			"sftp":              works(copies(curlPut("sftp"), curlGet("sftp"))),
			"scp":               works(copies(curlPut("scp"), curlGet("scp"))),
			"-L":                not(copiesOnly),
			"-L unix":           not(copiesOnly),
			"-D":                not(copiesOnly),
			"-R":                not(copiesOnly),
			"Agent":             not(copiesOnly),
			"X11":               not(copiesOnly),
			"End to end":        not("curl goes through HTTP and SOCKS proxies alone; `ssh -D` end to end is one"),
			"Rekey":             not("curl cannot be told when to do it"),
			"Answers keepalive": not(never),
			"Sends keepalive":   not(never),
		},
	}
}

// needCurl skips where curl is built without SSH.
func needCurl(t *testing.T) string {
	t.Helper()
	curl := testenv.Need(t, "curl")
	if out := mustRun(t, exec.CommandContext(t.Context(), curl, "-V")); !strings.Contains(out, " sftp ") {
		testenv.Skip(t, "needs a curl that speaks sftp")
	}
	return curl
}

// curl reads known_hosts in the guest's home directory.
func (g *guest) curl(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	options := []string{"--silent", "--show-error", "--user", task + ":", "--key", g.key(), "--pubkey", g.key() + ".pub"}
	return g.command(t, needCurl(t), append(options, args...)...)
}

func (g *guest) url(scheme, path string) string { return scheme + "://" + g.address + "/~/" + path }

// curlFetch is a runner as far as curl can be one: it prints a file that says
// that it is in, whatever the command.
func curlFetch(t *testing.T, g *guest, _ string) *exec.Cmd {
	t.Helper()
	mustDo(t, os.WriteFile(filepath.Join(g.remote, "in"), []byte("in\n"), 0o600))
	return g.curl(t, g.url("sftp", g.remotePath("in")))
}

func curlPut(scheme string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.curl(t, "--upload-file", from, g.url(scheme, to))
	}
}

func curlGet(scheme string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.curl(t, "--output", to, g.url(scheme, from))
	}
}
