package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth/webhook"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// receiver is a webhook with real TLS, which checks signatures. It admits a key's
// fingerprint, or a certificate's key ID, to the tasks that it is listed with.
type receiver struct {
	*httptest.Server
	secret string

	mu     sync.Mutex // guards what follows
	admits map[string]string
	asked  []string // TASK KEY-ID
	down   bool
}

func newReceiver(t *testing.T) *receiver {
	h := &receiver{secret: "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=", admits: map[string]string{}}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serve(t, w, r) }))
	t.Cleanup(h.Close)
	return h
}

func (h *receiver) serve(t *testing.T, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	secret, secretErr := webhook.ParseSecret(h.secret)
	if err == nil && secretErr == nil {
		err = webhook.Verify(secret, r.Header, body, time.Now())
	}
	var question struct {
		Data struct {
			Task string `json:"task"`
			Key  struct {
				Fingerprint string `json:"fingerprint"`
			} `json:"key"`
			Certificate struct {
				KeyID string `json:"key_id"`
			} `json:"certificate"`
		} `json:"data"`
	}
	if err == nil {
		err = json.Unmarshal(body, &question)
	}
	if err != nil {
		t.Errorf("the webhook was asked in a way that it does not understand: %v", err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	q := question.Data
	who := q.Key.Fingerprint
	if q.Certificate.KeyID != "" {
		who = q.Certificate.KeyID
	}
	h.asked = append(h.asked, q.Task+" "+who)
	if h.down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"allow": %v, "name": "hook:%.20s", "permissions": ["permit-exec@stagedoor"], "cache_for": 0}`, h.admits[who] == q.Task, who)
}

func (h *receiver) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// settings has a gateway ask the receiver.
func (h *receiver) settings(t *testing.T, dir, more string) string {
	write(t, filepath.Join(dir, "hook.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})))
	write(t, filepath.Join(dir, "hook.secret"), h.secret+"\n")
	return fmt.Sprintf("ca_file: hook.pem\nguests: {webhook: {url: %q, secret_file: hook.secret%s}}\n", h.URL+"/stagedoor", more)
}

// TestWebhook: whom the webhook admits enters the task that it was asked about,
// with the permissions that it gives, and nobody while it is down.
func TestWebhook(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	r := startDaemon(t, "")
	ca, alice, bob := testenv.NewKey(t, r.dir, "ca"), testenv.NewKey(t, r.dir, "alice"), testenv.NewKey(t, r.dir, "bob")
	carol := testenv.NewKey(t, r.dir, "carol")
	if out, err := exec.Command(testenv.Need(t, "ssh-keygen"), "-q", "-s", ca.File, "-I", "carol@example.com", "-n", "carol", carol.File+".pub").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.configure(hook.settings(t, r.dir, ", authorities: [ca.pub]"))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)
	hook.set(func() {
		hook.admits[fingerprint(alice)], hook.admits["carol@example.com"] = "task-1", "task-1"
		hook.admits[fingerprint(bob)] = "task-2"
	})
	r.startHostBy(nil, nil)
	for _, k := range []testenv.Key{alice, carol} {
		if out, err := r.enter("task-1", k, "echo in"); err != nil || out != "in\n" {
			t.Errorf("%s: %v: %q\n%s", k.File, err, out, r.log)
		}
	}
	r.log.await(t, `"identity":"hook:carol@example.com"`, 1)
	if out, err := r.enter("task-1", alice, "-s", "sftp"); err == nil || out == "" {
		t.Errorf("what is no permission of the answer: %v, %q", err, out)
	}
	if out, err := r.enter("task-1", bob, "echo in"); err == nil {
		t.Errorf("who may enter another task was let in: %q", out)
	}
	asked := len(hook.asked)
	r.enter("no-such-task", bob, "true")
	if hook.set(func() {}); len(hook.asked) == asked {
		t.Error("a task that does not exist can be told by the webhook not being asked")
	}
	hook.set(func() { hook.down = true })
	if out, err := r.enter("task-1", alice, "echo in"); err == nil {
		t.Errorf("somebody was let in while the webhook was down: %q", out)
	}
}

func TestWebhookIsChecked(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good"), "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=\n")
	bad := write(t, filepath.Join(dir, "bad"), "secret\n")
	for text, want := range map[string]string{
		"{}": "",
		"{url: 'https://ci.example.com/', secret_file: " + good + "}":                         "",
		"{url: 'https://ci.example.com/'}":                                                    "guests.webhook.secret_file: it is needed",
		"{secret_file: " + good + "}":                                                         "guests.webhook.url: there is a secret",
		"{url: 'http://ci.example.com/', secret_file: " + good + "}":                          "guests.webhook.url",
		"{url: 'https://ci.example.com/', secret_file: " + bad + "}":                          "guests.webhook.secret_file",
		"{url: 'https://ci.example.com/', secret_file: " + good + ", timeout: 0s}":            "guests.webhook.timeout",
		"{url: 'https://ci.example.com/', secret_file: " + good + ", authorities: [missing]}": "guests.webhook.authorities",
	} {
		c, r := loadText(t, "domain: a.example.com\nstate_dir: "+dir+"\nguests: {webhook: "+text+"}\n")
		var asked partners
		c.settings(r, &certificates{}, &asked, false)
		asked.close()
		if got := mistakesIn(r); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func fingerprint(k testenv.Key) string { return ssh.FingerprintSHA256(k.Signer.PublicKey()) }
