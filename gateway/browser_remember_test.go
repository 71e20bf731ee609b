package gateway_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth/person"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// withMemory has people say which keys are theirs.
func withMemory(s *gateway.Settings) { s.SignIn.RememberFor = time.Hour }

// enters reports whether a key alone lets in, and as whom.
func (w *signInWorld) enters(task string, k testenv.Key) bool {
	w.t.Helper()
	c, err := w.dial(task, ssh.PublicKeys(k.Signer))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// says has somebody sign in for a guest with keys, of which they tick those that
// are named.
func (w *signInWorld) says(who map[string]any, provider, task string, offered []testenv.Key, ticked ...testenv.Key) (in bool) {
	w.t.Helper()
	w.issuer.SignedIn(who)
	var signers []ssh.Signer
	for _, k := range offered {
		signers = append(signers, k.Signer)
	}
	var prints []string
	for _, k := range ticked {
		prints = append(prints, ssh.FingerprintSHA256(k.Signer.PublicKey()))
	}
	g := w.guest(task, signers...)
	w.browser().SignIn(g.link, provider, prints...)
	in, _ = g.outcome(w.t)
	return in
}

// TestRememberedKey: a key that somebody said is theirs lets them in where they may
// enter, over restarts, until somebody else says the same.
func TestRememberedKey(t *testing.T) {
	dir := t.TempDir()
	w := newSignInWorldWith(t, gateway.Options{StateDir: dir}, nil, withMemory)
	w.grantTo("task-1", "corp:alice", "corp:bob")
	w.grantTo("task-2", "corp:alice")
	w.grantTo("task-3", "corp:carol")
	w.grantTo("task-5", "corp:bob")
	bob := map[string]any{"sub": "2", "preferred_username": "bob"}
	ticked, other, foreign := testenv.NewKey(t, dir, "ticked"), testenv.NewKey(t, dir, "other"), testenv.NewKey(t, dir, "foreign")
	if !w.says(alice, "corp", "task-1", []testenv.Key{ticked, other}, ticked, foreign) {
		t.Fatal("alice was not let in")
	}
	for _, test := range []struct {
		task string
		key  testenv.Key
		want bool
	}{{"task-1", ticked, true}, {"task-2", ticked, true}, {"task-3", ticked, false}, {"task-4", ticked, false}, {"task-1", other, false}, {"task-1", foreign, false}} {
		if got := w.enters(test.task, test.key); got != test.want {
			t.Errorf("%s: let in is %v, want %v", test.task, got, test.want)
		}
	}
	if text := w.explain("task-1", ticked.Line); !strings.Contains(text, `"admitted":true`) || !strings.Contains(text, "corp:alice#a1b2-c3 signed in by a browser lately") {
		t.Errorf("explain says %s", text)
	}
	if out, err := w.sshCommand("task-1", ticked, "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("the real client, in batch mode: %v: %s", err, out)
	}
	if log := w.log.String(); !strings.Contains(log, "corp:alice#a1b2-c3") || !strings.Contains(log, "method=publickey") {
		t.Errorf("the log says\n%s", log)
	}

	if !w.says(bob, "corp", "task-5", []testenv.Key{ticked}, ticked) || !w.enters("task-5", ticked) || !w.enters("task-2", ticked) {
		t.Error("bob was not let in, or alice no more")
	}
	if w.enters("task-1", ticked) {
		t.Error("the key lets in one of two people who may both enter")
	}
	w.server.Close()

	again := newSignInWorldWith(t, gateway.Options{StateDir: dir}, nil, withMemory)
	again.grantTo("task-2", "corp:alice")
	if !again.enters("task-2", ticked) {
		t.Error("a gateway that starts again has forgotten")
	}
	forgetful := *again.settings.SignIn
	forgetful.RememberFor = 0
	again.settings.SignIn = &forgetful
	if err := again.server.Reload(again.settings); err != nil {
		t.Fatal(err)
	}
	if again.enters("task-2", ticked) {
		t.Error("a key lets in that was ticked before the operator stopped that")
	}
	again.settings.SignIn = nil
	if err := again.server.Reload(again.settings); err != nil {
		t.Fatal(err)
	}
	if again.enters("task-2", ticked) {
		t.Error("a key lets in without the provider")
	}
}

// TestRememberedKeyIsProved: the public half of a remembered key lets nobody in,
// and nobody who is refused is remembered.
func TestRememberedKeyIsProved(t *testing.T) {
	w := newSignInWorld(t, []person.Rule{{Provider: "corp", Claims: map[string][]string{"groups": {"ops"}}, Tasks: []string{"ops-*"}}}, withMemory)
	w.startAgent(w.token("ops-1", time.Now()))
	k, theirs := testenv.NewKey(t, w.dir, "k"), testenv.NewKey(t, w.dir, "theirs")
	if !w.says(alice, "corp", "ops-1", []testenv.Key{k}, k) || !w.enters("ops-1", k) {
		t.Fatal("alice was not let in, or not remembered")
	}
	half := &publicHalf{key: k.Signer.PublicKey()}
	if _, err := w.dial("ops-1", ssh.PublicKeys(half)); err == nil || !half.asked {
		t.Errorf("%v: it was to be asked to prove itself (%v)", err, half.asked)
	}
	mallory := map[string]any{"sub": "3", "groups": []string{"dev"}}
	if w.says(mallory, "corp", "ops-1", []testenv.Key{theirs}, theirs) || w.enters("ops-1", theirs) {
		t.Error("mallory is remembered")
	}
	half = &publicHalf{key: theirs.Signer.PublicKey()}
	if w.dial("ops-1", ssh.PublicKeys(half)); half.asked {
		t.Error("the key of somebody who was refused is said to be good")
	}
	w.asksAdmin("POST", gateway.AdminBlockPath, `{"identity": "corp:renamed#a1b2-c3"}`)
	if w.enters("ops-1", k) {
		t.Error("a remembered key lets in somebody who is blocked")
	}
}
