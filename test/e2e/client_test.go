package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// fails runs a client that has to end with status 255, ssh's own failure, and
// returns what it printed.
func fails(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if testenv.ExitCode(err) != 255 {
		t.Fatalf("%s: %v, want its own failure, 255\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// keygen makes a key with ssh-keygen. It has no Signer.
func keygen(t *testing.T, dir, name string, args ...string) testenv.Key {
	t.Helper()
	file := filepath.Join(dir, name)
	mustRun(t, exec.CommandContext(t.Context(), testenv.Need(t, "ssh-keygen"),
		append([]string{"-q", "-N", "", "-C", name, "-f", file}, args...)...))
	line, err := os.ReadFile(file + ".pub")
	mustDo(t, err)
	return testenv.Key{File: file, Line: strings.TrimSpace(string(line))}
}

// lines writes what is to be an authorized_keys file.
func lines(t *testing.T, lines ...string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "keys")
	mustDo(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return file
}

// noise is random bytes, with their checksum.
func noise(size int) ([]byte, [32]byte) {
	data := make([]byte, size)
	rand.Read(data)
	return data, sha256.Sum256(data)
}

// checksum reads to the end.
func checksum(r io.Reader) (sum [32]byte, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return [32]byte(h.Sum(nil)), n, err
}
