package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// withOperatorKeys lets guests in by an authorized_keys file too.
func withOperatorKeys(t *testing.T, lines string) func(*gateway.Settings) {
	t.Helper()
	keys, err := auth.ParseAuthorizedKeys("authorized_keys", []byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	return func(s *gateway.Settings) { s.Guests = auth.AnyOf{auth.GrantKeys{}, keys} }
}

// TestStrangerLearnsNothing compares all that a stranger sees at a task that
// exists, at one that does not, and at a name that cannot be a task. Only the name
// itself, as it was given, is another.
func TestStrangerLearnsNothing(t *testing.T) {
	w := newWorld(t)
	owner, stranger := testenv.NewKey(t, w.dir, "owner"), testenv.NewKey(t, w.dir, "stranger")
	w.startAgent(w.token("task-1", time.Now(), owner))

	seen := func(user string) string {
		var texts []string
		_, err := w.dial(user, ssh.PublicKeys(stranger.Signer), ssh.KeyboardInteractive(
			func(name, instruction string, questions []string, _ []bool) ([]string, error) {
				instruction = strings.Replace(instruction, fmt.Sprintf("opens a task named %q:", user), "opens a task named NAME:", 1)
				texts = append(texts, fmt.Sprintf("%q %q %v", name, instruction, questions))
				return nil, nil
			}))
		if err == nil {
			t.Fatalf("a stranger was let in as %q", user)
		}
		return fmt.Sprint(texts, err)
	}
	existing := seen("task-1")
	if !strings.Contains(existing, ssh.FingerprintSHA256(stranger.Signer.PublicKey())) {
		t.Errorf("the refusal does not name the key that was offered: %s", existing)
	}
	for _, other := range []string{"task-2", "root", "no such task!", ""} {
		if got := seen(other); got != existing {
			t.Errorf("as %q the stranger sees\n%s\nbut at an existing task\n%s", other, got, existing)
		}
	}
}

// TestRefusalIsReadable shows what a person with the wrong key sees in the
// terminal.
func TestRefusalIsReadable(t *testing.T) {
	w := newWorld(t)
	owner, stranger := testenv.NewKey(t, w.dir, "owner"), testenv.NewKey(t, w.dir, "stranger")
	w.startAgent(w.token("task-1", time.Now(), owner))
	cmd := w.sshCommand("task-1", stranger, "true")
	for i, arg := range cmd.Args { // keyboard-interactive is not tried in batch mode, and its text is at level info
		switch arg {
		case "BatchMode=yes":
			cmd.Args[i] = "BatchMode=no"
		case "LogLevel=ERROR":
			cmd.Args[i] = "LogLevel=INFO"
		}
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("a stranger was let in")
	}
	text := string(out)
	if n := strings.Count(text, ssh.FingerprintSHA256(stranger.Signer.PublicKey())); n != 1 {
		t.Errorf("the refusal names the key %d times, want once:\n%s", n, text)
	}
	if !strings.Contains(text, "Permission denied") {
		t.Errorf("no permission denied in:\n%s", text)
	}
}

// TestOfferedKeyDoesNotCount offers a key that the guest does not have before
// the guest's own, as the authentication bypass CVE-2024-45337 does.
func TestOfferedKeyDoesNotCount(t *testing.T) {
	dir := t.TempDir()
	admin, guest := testenv.NewKey(t, dir, "admin"), testenv.NewKey(t, dir, "guest")
	w := newWorld(t, withOperatorKeys(t, admin.Line+"\n"+`command="echo only this" `+guest.Line+"\n"))
	w.startAgent(w.token("task-1", time.Now()))
	// ssh offers admin.pub, is told that it would do, cannot sign, and goes on.
	if err := os.WriteFile(admin.File, []byte("not a key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := w.sshCommand("task-1", admin, "echo anything")
	cmd.Args = append([]string{cmd.Args[0], "-v"}, append(cmd.Args[1:len(cmd.Args)-2],
		"-o", "IdentityFile="+guest.File, "task-1@127.0.0.1", "echo anything")...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if string(out) != "only this\n" {
		t.Errorf("output %q: the guest has the permissions of a key that it only offered", out)
	}
	if log := w.log.String(); !strings.Contains(log, `msg="guest signed in" task=task-1 identity=guest`) {
		t.Errorf("the log does not name the guest:\n%s", log)
	}
}

// TestUserNameOfSignInCounts signs in under one name after trying another.
func TestUserNameOfSignInCounts(t *testing.T) {
	w := newWorld(t)
	victim, mallory := testenv.NewKey(t, w.dir, "victim"), testenv.NewKey(t, w.dir, "mallory")
	w.startAgent(w.token("victim-task", time.Now(), victim))
	w.startAgent(w.token("my-task", time.Now(), mallory))
	if _, err := w.dial("victim-task", ssh.PublicKeys(mallory.Signer)); err == nil {
		t.Fatal("mallory was let in to victim-task")
	}
	out, err := w.sshCommand("my-task", mallory, "echo $STAGEDOOR_TASK").CombinedOutput()
	if err != nil || string(out) != "my-task\n" {
		t.Errorf("%v: %q", err, out)
	}
}

func TestOperatorKeysAndUnknownTask(t *testing.T) {
	dir := t.TempDir()
	operator := testenv.NewKey(t, dir, "operator")
	w := newWorld(t, withOperatorKeys(t, operator.Line+"\n"))
	out, err := w.sshCommand("task-9", operator, "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "task task-9 has no host now") {
		t.Errorf("%v: %q, want the reason", err, out)
	}
}

func TestRestrictedKeyHasNoPTY(t *testing.T) {
	dir := t.TempDir()
	k := testenv.NewKey(t, dir, "guest")
	w := newWorld(t, withOperatorKeys(t, "no-pty "+k.Line+"\n"))
	w.startAgent(w.token("task-1", time.Now()))
	out, err := w.sshCommand("task-1", k, "echo fine").CombinedOutput()
	if err != nil || string(out) != "fine\n" {
		t.Errorf("without a PTY: %v: %q", err, out)
	}
	c := w.mustDial("task-1", k)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err == nil {
		t.Error("a guest with no-pty got a PTY")
	}
}

func TestFromOption(t *testing.T) {
	dir := t.TempDir()
	k := testenv.NewKey(t, dir, "guest")
	w := newWorld(t, withOperatorKeys(t, `from="192.0.2.0/24" `+k.Line+"\n"))
	w.startAgent(w.token("task-1", time.Now()))
	if _, err := w.dial("task-1", ssh.PublicKeys(k.Signer)); err == nil {
		t.Error("a key was accepted from an address that it may not come from")
	}
}

func TestAuthTries(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.AuthTries = 3 })
	owner := testenv.NewKey(t, w.dir, "owner")
	w.startAgent(w.token("task-1", time.Now(), owner))
	var signers []ssh.Signer
	for range 3 {
		signers = append(signers, testenv.Signer(t))
	}
	if c, err := w.dial("task-1", ssh.PublicKeys(signers[0], signers[1], owner.Signer)); err != nil {
		t.Errorf("the third key was not taken: %v", err)
	} else {
		c.Close()
	}
	if _, err := w.dial("task-1", ssh.PublicKeys(append(signers, owner.Signer)...)); err == nil {
		t.Error("a fourth key was taken")
	}
}

// publicHalf is a key of which only the public half is there. It notes whether a
// signature was asked for, which is when the gateway said that the key would do.
type publicHalf struct {
	key   ssh.PublicKey
	asked bool
}

func (p *publicHalf) PublicKey() ssh.PublicKey { return p.key }

func (p *publicHalf) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	p.asked = true
	return nil, errors.New("only the public half is there")
}

// TestPublicHalfLearnsNothing: whether a key is said to be good depends on the key
// alone, and not on the task.
func TestPublicHalfLearnsNothing(t *testing.T) {
	w := newWorld(t)
	owner, other, stranger := testenv.NewKey(t, w.dir, "owner"), testenv.NewKey(t, w.dir, "other"), testenv.NewKey(t, w.dir, "stranger")
	w.startAgent(w.token("task-1", time.Now(), owner))
	w.startAgent(w.token("task-2", time.Now(), other))
	for name, test := range map[string]struct {
		key  testenv.Key
		good bool
	}{"a key that a task names": {owner, true}, "a stranger's": {stranger, false}} {
		for _, user := range []string{"task-1", "task-2", "task-3", "Some Body", ""} {
			half := &publicHalf{key: test.key.Signer.PublicKey()}
			if _, err := w.dial(user, ssh.PublicKeys(half)); err == nil {
				t.Fatalf("%s signed in as %q without its private half", name, user)
			}
			if half.asked != test.good {
				t.Errorf("%s, as %q: good is %v, want %v", name, user, half.asked, test.good)
			}
		}
	}
}
