//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stagedoor/stagedoor/agent/ci"
)

// TestPlace: the first agent of a job is found by the others, later ones are in nobody's way.
func TestPlace(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	job := &ci.System{ID: "gitlab/1"}
	first, err := claimPlace(job)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first.socket(), nil, 0o600); err != nil { // as an agent that is killed leaves it
		t.Fatal(err)
	}
	second, err := claimPlace(job)
	if err != nil {
		t.Fatal(err)
	}
	other, err := claimPlace(&ci.System{ID: "gitlab/2"})
	if err != nil {
		t.Fatal(err)
	}
	if named, err := placeOf(job); err != nil || first.base != named.base || second.base == first.base || other.base == first.base || filepath.Dir(other.base) != filepath.Dir(first.base) {
		t.Errorf("%v: the job's place is %s; first %s, second %s, of another job %s", err, named.base, first.base, second.base, other.base)
	}
	first.lock.Close() // as the end of its process does
	again, err := claimPlace(job)
	if err != nil || again.base != first.base {
		t.Errorf("%v: %s, want that of the agent that was killed", err, again.base)
	}
	if _, err := os.Stat(again.socket()); err == nil {
		t.Error("the dead agent's socket is still there")
	}
	for _, p := range []place{second, other, again} {
		p.remove()
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("%v: left behind: %v", err, left)
	}
}

// TestPlaceOfOthers: where everybody may write, somebody may have made the directory first.
func TestPlaceOfOthers(t *testing.T) {
	dir := t.TempDir()
	for name, prepare := range map[string]func(string) error{
		"open":    func(path string) error { os.Mkdir(path, 0o700); return os.Chmod(path, 0o777) },
		"link":    func(path string) error { return os.Symlink(dir, path) },
		"no dir":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"missing": func(path string) error { return nil },
	} {
		path := filepath.Join(dir, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if err := privateDir(path); (err == nil) != (name == "missing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
