package gateway

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// TestRememberedIsBounded: what ends first goes, what is over is forgotten, and a
// file that cannot be read is told of.
func TestRememberedIsBounded(t *testing.T) {
	dir := t.TempDir()
	k, err := openRemembered(dir)
	if err != nil {
		t.Fatal(err)
	}
	k.most = 3
	var keys []ssh.PublicKey
	for i := range 5 {
		public, _, _ := ed25519.GenerateKey(nil)
		key, _ := ssh.NewPublicKey(public)
		keys = append(keys, key)
		if err := k.add([]ssh.PublicKey{key}, &auth.Person{Provider: "corp", ID: "1"}, time.Now().Add(time.Duration(i+1)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.add(keys[4:], &auth.Person{Provider: "corp", ID: "1", Login: "renamed"}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	again, err := openRemembered(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 0, 1, 1, 0} {
		if n, m := len(k.people(keys[i])), len(again.people(keys[i])); n != want || m != want {
			t.Errorf("key %d: %d people, and %d after a restart, want %d", i, n, m, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, rememberedFile), []byte(`{"v":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRemembered(dir); err == nil {
		t.Error("a file of another version is taken")
	}
}
