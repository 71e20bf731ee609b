package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestRecords: a list of records is read as strictly as everything else.
func TestRecords(t *testing.T) {
	const valid = "domain: a.example.com\n"
	for _, test := range []struct{ name, text, want string }{
		{"none", "forges:\n", ""},
		{"one", "forges:\n  - {name: git.example.com, kind: gitea, url: 'https://git.example.com', keys_from_api: true}\n", ""},
		{"no list", "forges: {name: a}\n", "c.yaml:2: forges: expected a list of up to 64 items"},
		{"no record", "forges: [a]\n", `c.yaml:2: forges: expected keys with values, got "a"`},
		{"a typing error", "forges:\n  - nmae: a\n", "c.yaml:3: forges[0].nmae: there is no such key in an item; there are name, kind"},
		{"a key twice", "forges:\n  - name: a\n    name: b\n", "c.yaml:4: forges[0].name: it is set a second time"},
		{"no text", "forges: [{name: 1}]\n", "c.yaml:2: forges[0].name: expected text, got the number"},
		{"no truth value", "forges: [{keys_from_api: 'yes'}]\n", "c.yaml:2: forges[0].keys_from_api: expected true or false"},
		{"a control character", "forges: [{\"a\\e[2J\": 1}]\n", `c.yaml:2: forges[0]."a\x1b[2J": there is no such key`},
	} {
		if _, r := loadText(t, valid+test.text); !strings.HasPrefix(mistakesIn(r), test.want) || test.want == "" && mistakesIn(r) != "" {
			t.Errorf("%s: %q, want %q", test.name, mistakesIn(r), test.want)
		}
	}
	c, _ := loadText(t, valid+"forges: [{name: a, token_file: t}]\n")
	if len(c.Forges) != 1 || !filepath.IsAbs(c.Forges[0].TokenFile) {
		t.Errorf("%+v: the path is not relative to the file", c.Forges)
	}
}

func TestForgesAreChecked(t *testing.T) {
	dir := t.TempDir()
	open := write(t, filepath.Join(dir, "open"), "token")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"[]":                                     "",
		"[{name: git.example.com, kind: gitea}]": "",
		"[{name: github, token_file: " + open + "}]": "others can read it",
		"[{kind: gitea}]":                           "name is missing",
		"[{name: git.example.com}]":                 "kind",
		"[{name: g, kind: gitea, url: 'http://g'}]": "https is needed",
		"[{name: github, token_file: missing}]":     "there is no such file",
	} {
		c, r := loadText(t, "domain: a.example.com\nstate_dir: "+dir+"\nforges: "+text+"\n")
		var asked partners
		c.settings(r, &certificates{}, &asked, false)
		asked.close()
		if got := mistakesIn(r); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// writeRoots writes the certificate of a server, for ca_file.
func writeRoots(t *testing.T, dir string, f *testenv.Forge) {
	t.Helper()
	write(t, filepath.Join(dir, "forge.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})))
}

// enter runs a command in a task with the real ssh.
func (r *running) enter(user string, k testenv.Key, command ...string) (string, error) {
	r.t.Helper()
	hostKey, err := ssh.ParsePrivateKey([]byte(read(r.t, filepath.Join(r.dir, "state", hostKeyFile))))
	if err != nil {
		r.t.Fatal(err)
	}
	options := testenv.SSHOptions(r.t, r.dir, r.sshAddress(), hostKey.PublicKey(), k)
	cmd := exec.CommandContext(r.t.Context(), testenv.Need(r.t, "ssh"), append(append(options, user+"@127.0.0.1"), command...)...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil // the user's shell may have its say on stderr
}

// TestAccountOnForge is the way from stagedoor token --account to a shell, with a
// forge of one's own. A reload that does not concern forges forgets nothing.
func TestAccountOnForge(t *testing.T) {
	t.Parallel()
	forge := testenv.NewForge(t)
	r := startDaemon(t, "")
	writeRoots(t, r.dir, forge)
	r.configure(fmt.Sprintf("ca_file: forge.pem\nforges: [{name: git.example.com, kind: github, url: %q}]\n", forge.URL))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)
	alice, bob := testenv.NewKey(t, r.dir, "alice"), testenv.NewKey(t, r.dir, "bob")
	forge.Set(7, "alice", alice.Line)
	r.startHostBy([]string{"--account", "git.example.com:Alice#7"}, nil)
	forge.SetDown(true)
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 2)
	if out, err := r.enter("task-1", alice, "echo in"); err != nil || out != "in\n" {
		t.Errorf("%v: %q\n%s", err, out, r.log)
	}
	if out, err := r.enter("task-1", bob, "echo in"); err == nil {
		t.Errorf("bob was let in: %q", out)
	}
	r.log.await(t, `"identity":"git.example.com:alice"`, 1)
}

func writePEM(t *testing.T, file string, der []byte) {
	t.Helper()
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}
