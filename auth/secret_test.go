package auth

import (
	"encoding/pem"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// secretParts are the pieces of a text by which it would be known again.
func secretParts(text string) []string {
	var parts []string
	for _, line := range strings.Fields(text) {
		for piece := range slices.Chunk([]byte(line), 12) {
			if len(piece) >= 6 && !strings.Contains("-----BEGIN OPENSSH PRIVATE KEY-----END", string(piece)) {
				parts = append(parts, string(piece))
			}
		}
	}
	return parts
}

func checkNoSecret(t testing.TB, what string, err error, secret string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	shown := strings.ToLower(err.Error())
	for _, part := range secretParts(secret) {
		if strings.Contains(shown, strings.ToLower(part)) {
			t.Errorf("%s: %q of the secret is in %q", what, part, err)
			return
		}
	}
}

// TestPrivateKeysAreNotShown gives private keys in the place of public ones, whole
// and in parts.
func TestPrivateKeysAreNotShown(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []string{"OpenSSH", "PEM", "PKCS8"} {
		name := "key_" + format
		args := []string{"-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", name}
		if format != "OpenSSH" {
			args = append(args, "-m", format)
		}
		keygen(t, dir, args...)
		data := readFile(t, dir, name)
		for what, text := range map[string][]byte{"the file": data, "below a comment": append([]byte("# mine\n\n"), data...)} {
			_, err := ParseAuthorizedKeys("keys", text)
			if !errors.Is(err, ErrPrivateKey) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("%s: %s: %v", format, what, err)
			}
			checkNoSecret(t, format+": "+what, err, string(data))
		}
		body := data[strings.IndexByte(string(data), '\n')+1:]
		_, err := ParseAuthorizedKeys("keys", body) // the first line was not copied
		checkNoSecret(t, format+": without its first line", err, string(body))
		for line := range strings.Lines(string(body)) {
			line = strings.TrimSpace(line)
			for _, text := range []string{line, "restrict," + line, "restrict " + line, line + " " + line, "ssh-ed25519 " + line, line + `="`} {
				_, err := ParseAuthorizedKeys("keys", []byte(text))
				checkNoSecret(t, format, err, line)
				checkNoSecret(t, format+" in a grant", (&Grant{AuthorizedKeys: []string{text}}).Check(), line)
			}
		}
	}
}

func TestFormsOfPrivateKeys(t *testing.T) {
	const blob = "AAAAIBhxkWYdvCGrD0pTqS1Tz3yzWdYYqK3yxeEqFhVYrJ0n"
	putty := "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n" + blob + "\n"
	if _, err := ParseAuthorizedKeys("keys", []byte(putty)); !errors.Is(err, ErrPrivateKey) {
		t.Errorf("PuTTY's: %v", err)
	}
	// The blob reads as a key whose type is the secret.
	_, err := ParseAuthorizedKeys("keys", []byte("ssh-ed25519 "+blob))
	if err == nil || !strings.HasPrefix(err.Error(), "keys:1: key cannot be read: ") || strings.Contains(err.Error(), "algorithm") {
		t.Errorf("PuTTY's lines: %v", err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})
	good := line(newSigner(t).PublicKey(), "-----BEGIN OPENSSH PRIVATE KEY-----")
	for _, text := range []string{string(public), good, ""} {
		if IsPrivateKey([]byte(text)) {
			t.Errorf("%q is taken for a private key", text)
		}
	}
}

// TestOneOfManyMistakes: a file that is something else does not fill the log.
func TestOneOfManyMistakes(t *testing.T) {
	_, err := ParseAuthorizedKeys("keys", []byte(strings.Repeat("frob\n", 70)))
	if err == nil || strings.Count(err.Error(), "\n") != maxWrongLines || !strings.HasSuffix(err.Error(), "keys: 65 more lines are wrong") {
		t.Errorf("error %v", err)
	}
}

func TestPublicHalf(t *testing.T) {
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "a")
	file := filepath.Join(dir, "a")
	if got := PublicHalf(file); got != file+".pub" {
		t.Errorf("with a .pub: %q", got)
	}
	alone := writeFile(t, 0o600, readFile(t, file), dir, "b")
	if got := PublicHalf(alone); got != "which ssh-keygen -y -f "+alone+" prints" {
		t.Errorf("without: %q", got)
	}
	if _, err := ssh.ParsePrivateKey(readFile(t, alone)); err != nil {
		t.Error(err)
	}
}
