package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestMistakesInRevokedKeys: a gateway that cannot tell who is revoked does not
// start, and says which file it is.
func TestMistakesInRevokedKeys(t *testing.T) {
	dir := t.TempDir()
	key := testenv.NewKey(t, dir, "alice")
	good := write(t, filepath.Join(dir, "good"), key.Line+"\n")
	private := key.File
	open := write(t, filepath.Join(dir, "open"), key.Line+"\n")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		good:                       "",
		filepath.Join(dir, "none"): "there is no such file",
		write(t, filepath.Join(dir, "empty"), ""):            "it is empty",
		write(t, filepath.Join(dir, "cut"), "SSHKRL\n\x00x"): "it is cut off",
		private: "is a private key: give its public half",
		open:    "run chmod go-w",
	} {
		c, r := loadText(t, "domain: localhost\nguests:\n  revoked_keys:\n  - "+good+"\n  - "+file+"\n")
		r.mistakes = nil // a certificate is not what this is about
		files := c.revoked(r, nil)
		text := mistakesIn(r)
		if want == "" && (text != "" || files.Check(key.Signer.PublicKey()) == nil) || !strings.Contains(text, want) {
			t.Errorf("%s: %q, want %q", file, text, want)
		}
		if want != "" && (files != nil || !strings.Contains(text, "c.yaml:5: guests.revoked_keys: ") || !strings.Contains(text, file)) {
			t.Errorf("%s: %q does not say where", file, text)
		}
	}
}
