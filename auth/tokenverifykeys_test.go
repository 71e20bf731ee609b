package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// signingKeys are one of each kind that signs tokens: the RSA key is always the same.
func signingKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	return map[string]crypto.Signer{"EdDSA": newKey(t), "ES256": jwstest.P256(), "RS256": jwstest.RSA()}
}

func rsaKeyOf(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	if bits < 2048 {
		t.Setenv("GODEBUG", "rsa1024min=0") // Go makes no such key any more
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mint(t testing.TB, key any) string {
	t.Helper()
	raw, err := MintToken(key, Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A file may hold several keys, a directory several files, of all kinds.
func TestTokenKeysOfFilesAndDirectories(t *testing.T) {
	dir, keys := t.TempDir(), signingKeys(t)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: keys["RS256"].Public(), KeyID: "1", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	all := writeFile(t, 0o644, append(append(jwstest.PEM(keys["EdDSA"]), jwstest.PEM(keys["ES256"])...), jwstest.PEM(keys["RS256"])...), t.TempDir(), "all.pem")
	writeFile(t, 0o644, append(jwstest.PEM(keys["EdDSA"]), jwstest.PEM(keys["ES256"])...), dir, "pair.pem")
	writeFile(t, 0o644, set, dir, "set.json")
	writeFile(t, 0o600, append(someSecret, '\n'), dir, "secret")
	// None of these is a key of ours.
	for _, name := range []string{".swp", "pair.pem~", "pair.pem.bak", "#pair.pem#", "old.orig", "set.json.rpmsave"} {
		writeFile(t, 0o644, []byte("rubbish"), dir, name)
	}
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, signers := range map[string][]any{
		dir: {keys["EdDSA"], keys["ES256"], keys["RS256"], someSecret},
		all: {keys["EdDSA"], keys["ES256"], keys["RS256"]},
	} {
		found, err := LoadTokenVerifyKeys(path)
		if err != nil || len(found) != len(signers) {
			t.Fatalf("%s: %d keys, %v", path, len(found), err)
		}
		for _, key := range signers {
			if token, err := verifierFor(found...).Verify(t.Context(), mint(t, key)); err != nil || token.Task != someTask {
				t.Errorf("%T: %v", key, err)
			}
		}
		if _, err := verifierFor(found...).Verify(t.Context(), mint(t, newKey(t))); err == nil {
			t.Error("another key signs, too")
		}
	}
}

// TestTokenKeysRefused: one bad file in a directory fails all, and is named.
func TestTokenKeysRefused(t *testing.T) {
	good := jwstest.PEM(newKey(t))
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	link := func(dir string) string {
		path := filepath.Join(dir, "bad")
		if err := os.Symlink(filepath.Join(dir, "nowhere"), path); err != nil {
			testenv.Skip(t, "needs symbolic links: "+err.Error())
		}
		return path
	}
	file := func(mode os.FileMode, text string) func(string) string {
		return func(dir string) string { return writeFile(t, mode, []byte(text), dir, "bad") }
	}
	for what, c := range map[string]struct {
		add  func(dir string) string
		want string
	}{
		"a text":              {file(0o600, "These keys are those of our CI system.\nAsk Alice."), "one word"},
		"a text of one line":  {file(0o600, "these keys are those of our CI system"), "one word"},
		"a word":              {file(0o600, "todo"), "4 bytes"},
		"an SSH key":          {file(0o644, line(newSigner(t).PublicKey(), "alice")), "SSH public key"},
		"a private key":       {file(0o600, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "private key"},
		"a weak key":          {file(0o644, string(jwstest.PEM(rsaKeyOf(t, 1024)))), "1024 bits"},
		"a key of P-384":      {file(0o644, string(jwstest.PEM(ec))), "P-384"},
		"a bad second key":    {file(0o644, string(good)+"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), ""},
		"rubbish behind":      {file(0o644, string(good)+"rubbish"), "PEM"},
		"nothing":             {file(0o644, ""), "0 bytes"},
		"a dead link":         {link, "no such file"},
		"a secret for all":    {file(0o644, string(someSecret)), "chmod 600"},
		"a key for all":       {file(0o666, string(good)), "chmod o-w"},
		"a set of other keys": {file(0o644, `{"keys":[{"kty":"EC","crv":"P-521"}]}`), "no key for"},
		"a pipe":              {pipe(t), "not a regular file"},
	} {
		t.Run(what, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.HasPrefix(c.want, "chmod") {
				t.Skip("no modes")
			}
			dir := t.TempDir()
			writeFile(t, 0o644, good, dir, "good.pem")
			bad := c.add(dir)
			keys, err := LoadTokenVerifyKeys(dir)
			if err == nil || keys != nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%d keys, %v, want %q and %s", len(keys), err, c.want, bad)
			}
			testenv.CheckText(t, err)
		})
	}
}

func TestTokenKeyDirectoriesRefused(t *testing.T) {
	if _, err := LoadTokenVerifyKeys(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("an empty directory: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	dir := t.TempDir()
	writeFile(t, 0o644, jwstest.PEM(newKey(t)), dir, "good.pem")
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTokenVerifyKeys(dir); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("where everybody can add a key: %v", err)
	}
}

// What keygen makes signs what its public half verifies.
func TestLoadOrCreateTokenKey(t *testing.T) {
	dir := t.TempDir()
	for _, algorithm := range TokenKeyAlgorithms() {
		path := filepath.Join(dir, algorithm)
		key, created, err := LoadOrCreateTokenKey(path, algorithm)
		if err != nil || !created {
			t.Fatalf("%s: created %v, %v", algorithm, created, err)
		}
		signing, err := LoadTokenKey(path)
		if err != nil {
			t.Fatal(err)
		}
		raw := mint(t, signing)
		if _, err := verifierFor(key.Public()).Verify(t.Context(), raw); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		if header := decodeHeader(t, raw); !strings.Contains(header, `"alg":"`+algorithm+`"`) {
			t.Errorf("%s: header %s", algorithm, header)
		}
		for _, other := range append(TokenKeyAlgorithms(), "") {
			_, created, err := LoadOrCreateTokenKey(path, other)
			if created || (err == nil) != (other == algorithm || other == "") {
				t.Errorf("a key for %s asked for as %q: created %v, %v", algorithm, other, created, err)
			}
		}
	}
	if _, _, err := LoadOrCreateTokenKey(filepath.Join(dir, "x"), "HS256"); err == nil {
		t.Error("an algorithm without a pair of keys")
	}
}
