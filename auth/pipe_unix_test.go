//go:build unix

package auth

import (
	"path/filepath"
	"syscall"
	"testing"
)

// pipe makes one, which nobody writes to.
func pipe(t testing.TB) func(dir string) string {
	return func(dir string) string {
		path := filepath.Join(dir, "bad")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}
