package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

// runWith runs the program and returns all that it prints.
func runWith(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, strings.NewReader(""), &out, &out)
	cli.Status("stagedoor", err, &out)
	return out.String()
}

// secretKey writes a private key, and returns its lines.
func secretKey(t *testing.T, file string) []string {
	t.Helper()
	key, err := newEd25519()
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(block))
	write(t, file, text)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[1 : len(lines)-1]
}

func checkHidden(t *testing.T, what, shown string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		for len(secret) >= 12 {
			if strings.Contains(strings.ToLower(shown), strings.ToLower(secret[:12])) {
				t.Errorf("%s: %q of a secret is in %q", what, secret[:12], shown)
				return
			}
			secret = secret[12:]
		}
	}
}

// TestPrivateKeyIsNotShown names a private key wherever a file is named.
func TestPrivateKeyIsNotShown(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STAGEDOOR_STATE_DIR", filepath.Join(dir, "state"))
	key := filepath.Join(dir, "id_ed25519")
	lines := secretKey(t, key)
	beheaded := write(t, filepath.Join(dir, "beheaded"), strings.Join(lines, "\n"))
	for _, file := range []string{key, beheaded} {
		for _, args := range [][]string{
			{"token", "--task", "t", "--authorized-keys", file},
			{"token", "--task", "t", "--key", file},
			{"token", "--task", "t", "--config", file},
			{"ssh-config", "--gateway", "a.example.com", "--host-ca", file},
			{"ssh-config", "--gateway", "a.example.com", "--host-key", file, "--known-hosts"},
			{"block", "--key", file},
			{"block", file},
			{"explain", "--key", file},
		} {
			checkHidden(t, strings.Join(args, " "), runWith(t, args...), lines...)
		}
		c := DefaultConfig()
		for _, f := range fields(&c) {
			if f.Path && f.Key != "audit.file" && f.Key != "private.admin_socket" {
				args := []string{"gateway", "--check", "--domain", "a.example.com", "--guests-webhook-url", "https://hook.example.com/", "--" + f.Flag(), file}
				checkHidden(t, f.Key, runWith(t, args...), lines...)
			}
		}
	}
	shown := runWith(t, "token", "--task", "t", "--authorized-keys", key)
	if want := key + " is a private key: give its public half, which ssh-keygen -y -f " + key + " prints"; !strings.Contains(shown, want) {
		t.Errorf("token says %q, want %q", shown, want)
	}
	write(t, key+".pub", "")
	shown = runWith(t, "gateway", "--check", "--domain", "a.example.com", "--guests-authorized-keys", key)
	if want := key + " is a private key: give its public half, " + key + ".pub"; !strings.Contains(shown, want) {
		t.Errorf("gateway --check says %q, want %q", shown, want)
	}
}

// TestSecretInThePlaceOfAFileIsNotShown writes a secret itself where the name of
// its file is wanted, or anything else.
func TestSecretInThePlaceOfAFileIsNotShown(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STAGEDOOR_STATE_DIR", filepath.Join(dir, "state"))
	lines := secretKey(t, filepath.Join(dir, "key"))
	private, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{
		"eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJhdWQiOiJzdGFnZWRvb3IiLCJleHAiOjE3NjcyMjU2MDB9.c2lnbmF0dXJlc2lnbmF0dXJl",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a",
		"glpat-XyZabcDEFghi0123456789",
		string(private),
	}
	c := DefaultConfig()
	for i, secret := range secrets {
		hidden := append([]string{strings.TrimSpace(secret)}, lines...)
		if secret == string(private) {
			hidden = lines
		}
		for _, args := range [][]string{{secret}, {"token", secret}, {"gateway", secret}, {"keygen", "a", secret}, {"ssh-config", secret}, {"version", secret},
			{"token", "--task", secret}, {"token", "--task", "t", "--account", secret}, {"token", "--task", "t", "--permissions", secret},
			{"token", "--task", "t", "--authorized-keys", secret}, {"token", "--task", "t", "--key", secret}} {
			checkHidden(t, strings.Join(args[:len(args)-1], " "), runWith(t, args...), hidden...)
		}
		for j, f := range fields(&c) {
			if f.Key == "audit.file" || f.Key == "private.admin_socket" || (i+j)%3 != 0 { // each field meets at least one kind of secret
				continue
			}
			value := fmt.Sprintf("%q", secret)
			file := write(t, filepath.Join(dir, "c.yaml"), "domain: a.example.com\n"+yamlOf(f.Key, value))
			checkHidden(t, f.Key+" in the file", runWith(t, "gateway", "--check", "--config", file), hidden...)
			file = write(t, filepath.Join(dir, "c.yaml"), "domain: a.example.com\n"+yamlOf(f.Key, "["+value+"]"))
			checkHidden(t, f.Key+" as a list", runWith(t, "gateway", "--check", "--config", file), hidden...)
			if !f.Records {
				checkHidden(t, f.Flag(), runWith(t, "gateway", "--check", "--domain", "a.example.com", "--"+f.Flag(), secret), hidden...)
			}
		}
		file := write(t, filepath.Join(dir, "f.yaml"), fmt.Sprintf("domain: a.example.com\nforges:\n  - name: git.example.com\n    kind: gitlab\n    token_file: %q\n", secret))
		checkHidden(t, "forges", runWith(t, "gateway", "--check", "--config", file), hidden...)
	}
}

// yamlOf writes a.b: value in YAML.
func yamlOf(key, value string) string {
	text, indent := "", ""
	for part := range strings.SplitSeq(key, ".") {
		text += indent + part + ":"
		indent = "\n" + strings.Repeat("  ", strings.Count(text, ":"))
	}
	return text + " " + value + "\n"
}
