package auth

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// replace puts a file in the place of another, as programs do that write it whole.
func replace(t *testing.T, path string, data string) {
	t.Helper()
	if err := os.Rename(writeFile(t, 0o600, []byte(data), path+".new"), path); err != nil {
		t.Fatal(err)
	}
}

// TestRevokedFilesAreReadAgain: what is revoked is what the file says at the moment,
// however it was written, and while it cannot be read everybody is.
func TestRevokedFilesAreReadAgain(t *testing.T) {
	alice, bob := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	file := writeFile(t, 0o600, []byte("# nobody\n"), t.TempDir(), "revoked")
	var logged bytes.Buffer
	files, err := OpenRevokedFiles(slog.New(slog.NewTextHandler(&logged, nil)), file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, revoked ...ssh.PublicKey) {
		t.Helper()
		for _, key := range []ssh.PublicKey{alice, bob} {
			want := false
			for _, r := range revoked {
				want = want || bytes.Equal(r.Marshal(), key.Marshal())
			}
			if err := files.Check(key); (err != nil) != want {
				t.Errorf("%s: %v, want revoked %v", when, err, want)
			} else if err != nil {
				testenv.CheckText(t, err)
			}
		}
	}
	check("at first")
	writeFile(t, 0o600, []byte(line(alice, "a")+"\n"), file)
	check("written anew", alice)
	writeFile(t, 0o600, []byte(line(bob, "b")+"\n"), file) // as long, and mostly at the same time
	check("of the same size", bob)
	replace(t, file, line(alice, "a")+"\n"+line(bob, "b")+"\n")
	check("replaced", alice, bob)
	if err := os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("long since", alice, bob)
	for what, breaks := range map[string]func() error{
		"removed":   func() error { return os.Remove(file) },
		"truncated": func() error { return os.Truncate(file, 0) },
		"cut off":   func() error { return os.Truncate(file, 60) },
		"writable":  func() error { return os.Chmod(file, 0o666) },
	} {
		replace(t, file, "# nobody\n"+line(alice, "a")+"\n")
		check("before it is "+what, alice)
		logged.Reset()
		if err := breaks(); err != nil {
			t.Fatal(err)
		}
		check(what, alice, bob)
		check(what, alice, bob)
		if got := logged.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, file) {
			t.Errorf("%s: logged %s", what, got)
		}
	}
	replace(t, file, "# nobody\n")
	check("mended")
}

// TestRevokedFilesWatch: a change is noticed although nobody asks, and not one that
// leaves nothing to go by.
func TestRevokedFilesWatch(t *testing.T) {
	alice := newSigner(t).PublicKey()
	file := writeFile(t, 0o600, []byte("# nobody\n"), t.TempDir(), "revoked")
	files, err := OpenRevokedFiles(nil, file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan bool)
	var watching sync.WaitGroup
	watching.Go(func() {
		files.Watch(ctx, func(check func(ssh.PublicKey) error) {
			select {
			case changes <- check(alice) != nil:
			case <-ctx.Done():
			}
		})
	})
	defer watching.Wait()
	defer cancel()
	await := func(revoked bool) {
		t.Helper()
		select {
		case got := <-changes:
			if got != revoked {
				t.Errorf("revoked: %v", got)
			}
		case <-time.After(testenv.Patience):
			t.Fatal("the change was not noticed")
		}
	}
	await(false)
	if err := os.Remove(file); err != nil { // of which nobody hears
		t.Fatal(err)
	}
	replace(t, file, line(alice, "a")+"\n")
	await(true)
}

// TestMistakesInRevokedFiles: each keeps a gateway from starting.
func TestMistakesInRevokedFiles(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, 0o644, []byte("# nobody\n"), dir, "good")
	for want, file := range map[string]string{
		"no such file":       filepath.Join(dir, "none"),
		"not a regular file": dir,
		"it is empty":        writeFile(t, 0o644, nil, dir, "empty"),
		"run chmod go-w":     writeFile(t, 0o666, []byte("# nobody\n"), dir, "open"),
		"line 1: ":           writeFile(t, 0o644, []byte("serial: 5"), dir, "spec"),
		"larger than 16 MiB": writeFile(t, 0o644, make([]byte, maxRevokedKeys+1), dir, "large"),
	} {
		if files, err := OpenRevokedFiles(nil, good, file); files != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	var none *RevokedFiles
	none.Watch(t.Context(), nil)
	if err := none.Check(newSigner(t).PublicKey()); err != nil {
		t.Errorf("without files: %v", err)
	}
}
