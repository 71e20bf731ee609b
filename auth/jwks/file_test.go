package jwks

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func fileSet(t testing.TB, path string) (*Set, *testenv.Clock) {
	t.Helper()
	c := new(testenv.Clock)
	set, err := New(path, &Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	return set, c
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	inSet, inPEM, hidden := newEd25519(), newP256(), newEd25519()
	path := writeFile(t, 0o644, setOf(webKeyOf("1", inSet)), dir, "ci.json")
	writeFile(t, 0o644, pemOf(inPEM), dir, "other.pem")
	writeFile(t, 0o644, pemOf(hidden), dir, ".swp")

	set, _ := fileSet(t, dir)
	wantGood(t, set, sign(t, "1", inSet, "{}"))
	// A key in PEM has no kid, and so it may be any.
	wantGood(t, set, sign(t, "", inPEM, "{}"))
	wantGood(t, set, sign(t, "whatever", inPEM, "{}"))
	wantBad(t, set, sign(t, "", hidden, "{}"), "not among those")
	keys, err := set.Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Errorf("%v, %v", keys, err)
	}

	one, _ := fileSet(t, path)
	wantGood(t, one, sign(t, "1", inSet, "{}"))
	wantBad(t, one, sign(t, "", inPEM, "{}"), "not among those")
}

// What a directory looks like that Kubernetes mounts.
func TestFilesBySymlink(t *testing.T) {
	dir, key := t.TempDir(), newEd25519()
	if err := os.Mkdir(filepath.Join(dir, "..2026"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, 0o644, pemOf(key), dir, "..2026", "ci.pem")
	for link, target := range map[string]string{"..data": "..2026", "ci.pem": "..data/ci.pem"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Skip(err) // Windows
		}
	}
	set, _ := fileSet(t, dir)
	wantGood(t, set, sign(t, "", key, "{}"))
}

func TestFileRotation(t *testing.T) {
	dir := t.TempDir()
	old, next := newEd25519(), newEd25519()
	path := writeFile(t, 0o644, setOf(webKeyOf("old", old)), dir, "ci.json")
	set, clock := fileSet(t, path)
	oldToken, nextToken := sign(t, "old", old, "{}"), sign(t, "next", next, "{}")
	wantGood(t, set, oldToken)

	// A key that is new is found when a token names it.
	writeFile(t, 0o644, setOf(webKeyOf("old", old), webKeyOf("next", next)), path)
	clock.Advance(time.Second)
	wantGood(t, set, nextToken)
	wantGood(t, set, oldToken)

	// One that is gone is forgotten.
	writeFile(t, 0o644, setOf(webKeyOf("next", next)), path)
	clock.Advance(20 * time.Second)
	wantGood(t, set, nextToken)
	wantBad(t, set, oldToken, "not among those")

	// A file that is broken leaves what was there, for a while.
	writeFile(t, 0o644, []byte(`{"keys":[`), path)
	clock.Advance(20 * time.Second)
	wantGood(t, set, nextToken)
	clock.Advance(24 * time.Hour)
	wantBad(t, set, nextToken, "ci.json")
	writeFile(t, 0o644, setOf(webKeyOf("next", next)), path)
	clock.Advance(time.Second)
	wantGood(t, set, nextToken)
}

func TestFilesRefused(t *testing.T) {
	dir := t.TempDir()
	good := setOf(webKeyOf("1", newEd25519()))
	sub := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	broken := sub("broken")
	writeFile(t, 0o644, good, broken, "a.json")
	writeFile(t, 0o644, []byte("ssh-ed25519 AAAA"), broken, "b.pub")
	nested := sub("nested")
	writeFile(t, 0o644, good, nested, "a.json")
	if err := os.Mkdir(filepath.Join(nested, "more"), 0o755); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct{ path, want string }{
		"missing":         {filepath.Join(dir, "none"), "none"},
		"empty directory": {sub("empty"), "no key"},
		"one is broken":   {broken, "b.pub"},
		"a subdirectory":  {nested, "not a regular file"},
		"a huge file":     {writeFile(t, 0o644, []byte(strings.Repeat(" ", maxFile+1)), dir, "huge"), "larger than"},
		"a device":        {os.DevNull, "not a regular file"},
	}
	if runtime.GOOS != "windows" {
		open := sub("open")
		writeFile(t, 0o644, good, open, "a.json")
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
		cases["a file for everybody"] = struct{ path, want string }{writeFile(t, 0o666, good, dir, "open.json"), "chmod o-w"}
		cases["a directory for everybody"] = struct{ path, want string }{open, "chmod o-w"}
	}
	for what, c := range cases {
		set, _ := fileSet(t, c.path)
		err := set.Refresh(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
			continue
		}
		testenv.CheckText(t, err)
		wantBad(t, set, sign(t, "1", newEd25519(), "{}"), c.want)
	}
}
