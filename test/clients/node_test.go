package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// ssh2 is the SSH library of Node's programs.
func ssh2() client {
	d := driver(func(t *testing.T) []string {
		return []string{testenv.Need(t, "node"), filepath.Join(nodeModules(t), "ssh2_driver.js")}
	})
	return client{
		name: "ssh2 (Node)",
		version: func(t *testing.T) string {
			return "ssh2 " + firstLine(t, "node", "-p", "require('"+nodeModules(t)+"/node_modules/ssh2/package.json').version")
		},
		need: func(t *testing.T) { nodeModules(t) },
		cells: d.cells(map[string]cell{
			"scp":     not("the library has no scp"),
			"-L unix": works(pipes(toUnix, d.pipe("unix"))).but("with the library's option `strictVendor: false`"),
			"Rekey":   works(rekeys(d.run("rekey"), "new keys")),
		}),
	}
}

var nodeOnce sync.Mutex

// nodeModules is a directory with the driver and what it needs of npm, in the
// user's cache, so that npm has something to do once only. A different lock file
// makes another one.
func nodeModules(t *testing.T) string {
	t.Helper()
	nodeOnce.Lock()
	defer nodeOnce.Unlock()
	testenv.Need(t, "node")
	npm := testenv.Need(t, "npm")
	files := map[string][]byte{}
	sum := sha256.New()
	for _, name := range []string{"package.json", "package-lock.json", "ssh2_driver.js"} {
		data, err := os.ReadFile(script(t, filepath.Join("node", name)))
		mustDo(t, err)
		files[name] = data
		sum.Write(data)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "stagedoor-test", "node-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	installNode(t, npm, dir, files)
	return dir
}

// installNode runs npm beside the place where its work belongs, and moves that
// there when it is complete.
func installNode(t *testing.T, npm, dir string, files map[string][]byte) {
	t.Helper()
	mustDo(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	draft, err := os.MkdirTemp(filepath.Dir(dir), "draft-")
	mustDo(t, err)
	defer os.RemoveAll(draft)
	for name, data := range files {
		mustDo(t, os.WriteFile(filepath.Join(draft, name), data, 0o644))
	}
	// The optional parts are faster ciphers in C++, to be compiled by node-gyp.
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
	cmd.Dir = draft
	if out, err := cmd.CombinedOutput(); err != nil {
		testenv.Skip(t, "needs ssh2 from npm, but npm ci fails: "+tail(string(out)))
	}
	if err := os.Rename(draft, dir); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
}
