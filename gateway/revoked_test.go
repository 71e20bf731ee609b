package gateway_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// revocation is a list of revoked keys that a gateway goes by.
type revocation struct {
	t    *testing.T
	file string
}

func newRevocation(t *testing.T) *revocation {
	r := &revocation{t, filepath.Join(t.TempDir(), "revoked")}
	r.write("# nobody")
	return r
}

// write replaces the list in one go.
func (r *revocation) write(lines ...string) {
	r.t.Helper()
	if err := os.WriteFile(r.file+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		r.t.Fatal(err)
	}
}

// writeKRL has ssh-keygen make it of a specification, about certificates by ca.
func (r *revocation) writeKRL(ca ssh.PublicKey, spec string) {
	r.t.Helper()
	dir := filepath.Dir(r.file)
	for name, data := range map[string]string{"ca.pub": string(ssh.MarshalAuthorizedKey(ca)), "spec": spec + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(r.t.Context(), testenv.Need(r.t, "ssh-keygen"), "-k", "-q", "-f", r.file+".new", "-s", "ca.pub", "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		r.t.Fatal(err)
	}
}

func (r *revocation) settings(s *gateway.Settings) {
	r.t.Helper()
	var err error
	if s.Revoked, err = auth.OpenRevokedFiles(nil, r.file); err != nil {
		r.t.Fatal(err)
	}
}

// TestRevokedKeysEnterNowhere: what a list names lets nobody in by any way, under
// any name, and the next moment others are as they were.
func TestRevokedKeysEnterNowhere(t *testing.T) {
	r, f := newRevocation(t), testenv.NewForge(t)
	granted, operator, account := testenv.NewKey(t, t.TempDir(), "granted"), testenv.NewKey(t, t.TempDir(), "operator"), testenv.NewKey(t, t.TempDir(), "account")
	holder, ca := testenv.NewKey(t, t.TempDir(), "holder"), testenv.Signer(t)
	f.Set(583231, "alice", account.Line)
	w := newWorld(t, withForge(t, f), func(s *gateway.Settings) {
		keys, err := auth.ParseAuthorizedKeys("operators", []byte(operator.Line+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		s.Guests = auth.AnyOf{auth.GrantKeys{}, &forge.Authorizer{Resolver: s.Forges, Accounts: forge.OfGrant}, keys}
	}, r.settings)
	token, err := auth.MintToken(w.tokenKey, auth.Token{Task: "task-1", ID: rand.Text(), Expires: time.Now().Add(time.Hour),
		Grant: auth.Grant{AuthorizedKeys: []string{granted.Line, authority(ca, "").Line}, Accounts: []string{"forge:alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.startHost("task-1", token, answerAtEnd)
	cert := certify(t, holder, ca, time.Now().Add(time.Minute), "task-1")
	line := func(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }
	guests := map[string]ssh.Signer{"granted": granted.Signer, "operator": operator.Signer, "account": account.Signer, "certificate": cert}
	for name, revoke := range map[string]func(){
		"granted":                    func() { r.write(granted.Line) },
		"operator":                   func() { r.write("# x", operator.Line) },
		"account":                    func() { r.write(account.Line) },
		"certificate, by its key":    func() { r.write(holder.Line) },
		"certificate, by authority":  func() { r.write(line(ca.PublicKey())) },
		"certificate, by key ID":     func() { r.writeKRL(ca.PublicKey(), "id: carol") },
		"granted, by hash":           func() { r.writeKRL(ca.PublicKey(), "hash: "+ssh.FingerprintSHA256(granted.Signer.PublicKey())) },
		"nobody":                     func() { r.writeKRL(ca.PublicKey(), "serial: 5") },
		"all, as the list is broken": func() { r.write(granted.Line[:50]) },
	} {
		revoke()
		for who, signer := range guests {
			revoked := strings.HasPrefix(name, who) || strings.HasPrefix(name, "all")
			for _, user := range []string{"task-1", "somebody"} {
				c, err := w.dial(user, ssh.PublicKeys(signer))
				if err == nil {
					c.Close()
				}
				if (err != nil) != revoked {
					t.Errorf("%s is revoked, %s as %s: %v", name, who, user, err)
				}
			}
		}
	}
	if log := w.log.String(); !strings.Contains(log, "is revoked by "+r.file) {
		t.Error("the log does not say which list it was")
	}
}

// TestRevokedWhileIn: who is in by a key that is revoked is thrown out and told so,
// by splice and by jump. Others stay, and everybody while the list is unreadable.
func TestRevokedWhileIn(t *testing.T) {
	r := newRevocation(t)
	w := newWorld(t, r.settings)
	alice, bob, carol := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob"), testenv.NewKey(t, w.dir, "carol")
	w.startAgent(w.token("task-1", time.Now(), alice, bob, carol))
	enter := func(k testenv.Key) (said *testenv.Output, left chan struct{}) {
		s, err := w.mustDial("task-1", k).NewSession()
		if err != nil {
			t.Fatal(err)
		}
		said, left = &testenv.Output{}, make(chan struct{})
		s.Stderr, s.Stdout = said, said
		in, err := s.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start("echo in; cat"); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(left)
			s.Wait()
			in.Close()
		}()
		if !said.Wait(t.Context(), func(s string) bool { return strings.Contains(s, "in\n") }, left) {
			t.Fatal("the command did not run")
		}
		return said, left
	}
	said, left := enter(alice)
	_, stays := enter(bob)
	ch, err := jumpTo(w.mustDial("somebody", carol), "task-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dial("task-1", ssh.PublicKeys(bob.Signer)); err == nil {
		t.Error("with a list that cannot be read a key is let in")
	}
	r.write(alice.Line, carol.Line)
	<-left
	if !strings.Contains(said.String(), "stagedoor: your key, or the certificate of it, has been revoked") {
		t.Errorf("the guest was told %q", said)
	}
	for err = nil; err == nil; { // until it is closed
		_, err = ch.Read(make([]byte, 1024))
	}
	select {
	case <-stays:
		t.Error("another guest had to leave")
	default:
	}
	if c, err := w.dial("task-1", ssh.PublicKeys(bob.Signer)); err != nil {
		t.Errorf("a key that is not on the list: %v", err)
	} else {
		c.Close()
	}
	settings := w.settings
	settings.Revoked = nil
	if err := w.server.Reload(settings); err != nil {
		t.Fatal(err)
	}
	w.mustDial("task-1", alice)
}

// TestExplainRevoked: an operator is told by which list a key is revoked.
func TestExplainRevoked(t *testing.T) {
	r := newRevocation(t)
	w := newWorld(t, r.settings)
	alice := testenv.NewKey(t, w.dir, "alice")
	w.startHost("task-1", w.token("task-1", time.Now(), alice), answerAtEnd)
	for _, revoked := range []bool{false, true} {
		if revoked {
			r.write(alice.Line)
		}
		text := w.explain("task-1", alice.Line)
		if strings.Contains(text, "is revoked by "+r.file) != revoked || strings.Contains(text, `"admitted":true`) == revoked {
			t.Errorf("revoked %v: %s", revoked, text)
		}
	}
}

// explain asks why a key would get in or not, and returns the JSON.
func (w *world) explain(task, key string) string {
	w.t.Helper()
	question := httptest.NewRequest(http.MethodPost, gateway.AdminExplainPath, strings.NewReader(`{"task": "`+task+`", "key": "`+strings.TrimSpace(key)+`", "from": "127.0.0.1"}`))
	question.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	w.server.AdminHandler().ServeHTTP(answer, question)
	return answer.Body.String()
}
