package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// output runs a command of this program, which has to succeed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var stdout bytes.Buffer
	if err := run(t.Context(), args, nil, &stdout, io.Discard); err != nil {
		t.Fatalf("stagedoor %s: %v", strings.Join(args, " "), err)
	}
	return stdout.String()
}

// A keyURL publishes whatever text it is given.
type keyURL struct {
	mu   sync.Mutex
	text string
}

func (k *keyURL) publish(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text = text
}

func (k *keyURL) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	io.WriteString(w, k.text)
}

// TestTokenKeysByURL is a CI system that publishes its ES256 keys and changes them:
// the new key's hosts come in, the old key's tokens stop, and whoever has
// registered stays.
func TestTokenKeysByURL(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ssh")
	published := &keyURL{}
	site := testenv.NewTLSServer(t, published)
	r := startDaemon(t, "")
	writePEM(t, filepath.Join(r.dir, "partners.pem"), site.Certificate().Raw)
	in := func(name string) string { return filepath.Join(r.dir, name) }
	for _, name := range []string{"old", "new"} {
		output(t, "keygen", "--algorithm", "ES256", in(name))
	}
	published.publish(output(t, "jwks", in("old.pub")))
	r.configure(fmt.Sprintf("ca_file: partners.pem\nhosts: {token_keys: [%s/keys.json]}\n", site.URL))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)

	alice := testenv.NewKey(t, r.dir, "alice")
	start := func(task, key string) *job {
		token := output(t, "token", "--task", task, "--key", in(key), "--authorized-keys", alice.File+".pub")
		return r.startJob(map[string]string{"STAGEDOOR_TOKEN": strings.TrimSpace(token)})
	}
	start("task-1", "old").stdout.await(t, "task-1@localhost\n", 1)
	if j := start("task-2", "new"); j.ends() != 3 || !strings.Contains(j.stderr.String(), "not among those") {
		t.Errorf("by a key that is not published: %s", j.stderr)
	}

	published.publish(output(t, "jwks", in("new.pub")))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 2)
	if j := start("task-3", "old"); j.ends() != 3 {
		t.Errorf("by the old key: %s", j.stderr)
	}
	start("task-4", "new").stdout.await(t, "task-4@localhost\n", 1)
	for _, task := range []string{"task-1", "task-4"} {
		if out, err := r.enter(task, alice, "echo in"); err != nil || out != "in\n" {
			t.Errorf("%s: %v: %q", task, err, out)
		}
	}
}

// TestTokenKeysOfDirectory: keys are put into a directory and taken out, and a
// SIGHUP has that count. What does not belong there keeps all as it was.
func TestTokenKeysOfDirectory(t *testing.T) {
	t.Parallel()
	r := startDaemon(t, "")
	in := func(name string) string { return filepath.Join(r.dir, name) }
	if err := os.Mkdir(in("keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, algorithm := range map[string]string{"ed": "EdDSA", "rsa": "RS256"} {
		output(t, "keygen", "--algorithm", algorithm, in(name))
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(in(from), in(to)); err != nil {
			t.Fatal(err)
		}
	}
	jobs := 0
	admitted := func(key string) bool {
		jobs++
		token := output(t, "token", "--task", fmt.Sprintf("task-%d", jobs), "--key", in(key))
		j := r.startJob(map[string]string{"STAGEDOOR_TOKEN": strings.TrimSpace(token)})
		poll(t, "the job comes in or ends", func() bool {
			select {
			case <-j.done:
				return true
			default:
				return strings.Contains(j.stdout.String(), "@localhost\n")
			}
		})
		return strings.Contains(j.stdout.String(), "@localhost\n")
	}
	move("ed.pub", "keys/ed.pub")
	r.configure("hosts: {token_keys: [keys]}\n")
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)
	if !admitted("ed") || admitted("rsa") {
		t.Error("not the key in the directory counts")
	}
	move("rsa.pub", "keys/rsa.pub")
	move("keys/ed.pub", "keys/.ed.pub")
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 2)
	if admitted("ed") || !admitted("rsa") {
		t.Error("the keys are those from before")
	}
	write(t, in("keys/README"), "The keys of our CI system.\n")
	r.signal(syscall.SIGHUP)
	r.log.await(t, "hosts.token_keys: load token key "+in("keys/README"), 1)
	if !admitted("rsa") {
		t.Error("a mistake shut hosts out")
	}
}

func TestTokenKeysAreChecked(t *testing.T) {
	dir := t.TempDir()
	output(t, "keygen", filepath.Join(dir, "ci"))
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.Mkdir(broken, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(broken, "link.pub")); err != nil {
		testenv.Skip(t, "needs symbolic links: "+err.Error())
	}
	for entry, want := range map[string]string{
		"ci.pub":                           "",
		"https://ci.example.com/keys":      "",
		"ci":                               "private key",
		"none.pub":                         "none.pub: there is no such file",
		"empty":                            "no key in the directory",
		"broken":                           "link.pub: there is no such file",
		"http://ci.example.com/keys":       "https is needed",
		"https://u:hunter2@ci.example.com": "user name or password",
	} {
		c, r := loadText(t, "domain: a.example.com\nstate_dir: state\nhosts:\n  token_keys:\n  - "+filepath.Join(dir, "ci.pub")+"\n  - "+inDir(dir, entry)+"\n")
		var asked partners
		c.settings(r, &certificates{}, &asked, false)
		asked.close()
		got := mistakesIn(r)
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(got, "hunter2") {
			t.Errorf("%s: %q, want %q", entry, got, want)
		}
		if want != "" && !strings.HasPrefix(got, "c.yaml:6: hosts.token_keys: ") {
			t.Errorf("%s: %q names another line", entry, got)
		}
	}
}

// TestRenewalKeysOfFiles: an agent is given a credential by the new key when there is
// one, and comes back by it when the old one is gone.
func TestRenewalKeysOfFiles(t *testing.T) {
	t.Parallel()
	r := startDaemon(t, "")
	for _, name := range []string{"ci", "next"} {
		output(t, "keygen", filepath.Join(r.dir, name))
	}
	token := output(t, "token", "--config", r.file, "--task", "task-1")
	j := r.startJob(map[string]string{"STAGEDOOR_TOKEN": strings.TrimSpace(token)})
	j.stdout.await(t, "task-1@localhost\n", 1)
	reload := func(keys string, n int) {
		t.Helper()
		r.configure("hosts: {token_keys: [ci.pub], renewal_keys: " + keys + "}\n") // its token counts no more
		r.signal(syscall.SIGHUP)
		r.log.await(t, "configuration reloaded", n)
	}
	reload("[next, state/renewal_key]", 1)
	r.log.await(t, "host registered", 2)
	reload("[next]", 2)
	// Whatever has agents dial again: here it is what guests may do.
	r.configure("hosts: {token_keys: [ci.pub], renewal_keys: [next]}\nguests: {permissions: [pty]}\n")
	r.signal(syscall.SIGHUP)
	r.log.await(t, "host registered", 3)
}

func TestRenewalKeysAreChecked(t *testing.T) {
	dir := t.TempDir()
	output(t, "keygen", filepath.Join(dir, "ed"))
	output(t, "keygen", "--algorithm", "ES256", filepath.Join(dir, "ec"))
	for file, want := range map[string]string{
		"ed": "", "ec": "ec holds no Ed25519 key", "ed.pub": "is a public key", "none": "none: there is no such file",
	} {
		c, r := loadText(t, "domain: a.example.com\nstate_dir: state\nhosts: {renewal_keys: ["+filepath.Join(dir, "ed")+", "+filepath.Join(dir, file)+"]}\n")
		var asked partners
		s := c.settings(r, &certificates{}, &asked, false)
		asked.close()
		if got := mistakesIn(r); want == "" && (got != "" || len(s.OtherRenewalKeys) != 1) || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// inDir is a file in a directory, or a URL as it is.
func inDir(dir, entry string) string {
	if isURL(entry) {
		return entry
	}
	return filepath.Join(dir, entry)
}
