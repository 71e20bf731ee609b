package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestTryLetsTheUsersKeysIn: the keys that the user's ssh would offer are in the
// grant, beside the throw-away one.
func TestTryLetsTheUsersKeysIn(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	own := testenv.NewKey(t, filepath.Join(home, ".ssh"), "id_work")
	throwAway := testenv.Signer(t)
	got := (&try{throwKey: throwAway}).guestKeys()
	for _, want := range []string{own.Line, authorizedLine(throwAway.PublicKey(), "stagedoor-try")} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not among the keys that are let in: %q", want, got)
		}
	}
}
