package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// withPasswords lets guests in by one-time passwords, too.
func withPasswords(s *gateway.Settings) {
	s.Guests = auth.AnyOf{s.Guests, auth.OneTimePasswords{}}
	s.OneTimePasswords = true
}

// passwordTask starts the agent of a task whose grant wants a password. It returns
// that password, and what is told about it from then on.
func (w *world) passwordTask(task string, change ...func(*agent.Agent)) (password string, told <-chan agent.Registration) {
	w.t.Helper()
	registrations := make(chan agent.Registration, 16)
	w.startAgent(w.tokenFor(task, auth.Grant{OneTimePassword: true}), append(change, func(a *agent.Agent) {
		registered := a.Registered
		a.Registered = func(r agent.Registration) {
			registrations <- r
			registered(r)
		}
	})...)
	return (<-registrations).OneTimePassword, registrations
}

// asked has the real client answer each question by a text.
func asked(t *testing.T, cmd *exec.Cmd, answer string) *exec.Cmd {
	t.Helper()
	script := filepath.Join(t.TempDir(), "answer")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho '"+answer+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, arg := range cmd.Args {
		switch arg {
		case "BatchMode=yes":
			cmd.Args[i] = "BatchMode=no"
		case "LogLevel=ERROR":
			cmd.Args[i] = "LogLevel=INFO"
		}
	}
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+script, "SSH_ASKPASS_REQUIRE=force", "DISPLAY=none")
	return cmd
}

// TestOneTimePasswordOnce: the password in the job's log lets in one guest of the
// real client, by either method, as nobody in particular.
func TestOneTimePasswordOnce(t *testing.T) {
	for _, method := range []string{"keyboard-interactive", "password"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t, withPasswords)
			password, _ := w.passwordTask("task-1")
			stranger := testenv.NewKey(t, w.dir, "stranger")
			enter := func() (string, error) {
				cmd := w.sshCommand("task-1", stranger, "echo in")
				cmd.Args = append([]string{cmd.Args[0], "-o", "PreferredAuthentications=publickey," + method}, cmd.Args[1:]...)
				out, err := asked(t, cmd, strings.ToUpper(password)).CombinedOutput()
				return string(out), err
			}
			if out, err := enter(); err != nil || !strings.HasSuffix(out, "in\n") {
				t.Fatalf("%v: %s", err, out)
			}
			if log := w.log.String(); !strings.Contains(log, "identity=one-time-password") || strings.Contains(log, password) {
				t.Errorf("the log says\n%s", log)
			}
			if out, err := enter(); err == nil {
				t.Errorf("it lets in a second time: %s", out)
			}
		})
	}
}

// usePassword signs in by a password in this process.
func (w *world) usePassword(task, password string) error {
	c, err := w.dial(task, ssh.Password(password))
	if err == nil {
		c.Close()
	}
	return err
}

// TestOneTimePasswordTellsNothing compares all that is seen of a wrong password at
// a task that has one, at one that was used, at one without, and at none.
func TestOneTimePasswordTellsNothing(t *testing.T) {
	w := newWorld(t, withPasswords)
	w.passwordTask("task-1")
	used, _ := w.passwordTask("task-2")
	if err := w.usePassword("task-2", used); err != nil {
		t.Fatal(err)
	}
	w.startAgent(w.token("task-3", time.Now()))
	want := w.usePassword("task-1", auth.NewOneTimePassword())
	if want == nil {
		t.Fatal("a wrong password lets in")
	}
	for user, password := range map[string]string{"task-2": used, "task-3": "", "task-4": used, "no task!": used, "task-1": used} {
		if err := w.usePassword(user, password); err == nil || err.Error() != want.Error() {
			t.Errorf("%s: %v, want %v", user, err, want)
		}
	}
}

// TestOneTimePasswordIsOff: without the operator's leave nobody is asked for one.
func TestOneTimePasswordIsOff(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Guests = auth.AnyOf{s.Guests, auth.OneTimePasswords{}} })
	password, _ := w.passwordTask("task-1")
	if err := w.usePassword("task-1", password); err == nil || !strings.Contains(err.Error(), "attempted methods [none]") {
		t.Errorf("%v", err)
	}
}

// TestOneTimePasswordOutlivesTheGateway: one that was used stays so for a gateway
// that starts again. The agent is told.
func TestOneTimePasswordOutlivesTheGateway(t *testing.T) {
	dir := t.TempDir()
	w := newWorldWith(t, gateway.Options{StateDir: dir}, withPasswords)
	log := new(logBuffer)
	password, _ := w.passwordTask("task-1", func(a *agent.Agent) { a.Logger = log.logger() })
	if err := w.usePassword("task-1", password); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent hears that the password was used", func() bool { return strings.Contains(log.String(), "one-time password was used") })
	if strings.Contains(log.String(), password) {
		t.Errorf("the agent's log has the password:\n%s", log)
	}
	w.server.Close()

	again := newWorldWith(t, gateway.Options{StateDir: dir}, withPasswords)
	token := again.tokenFor("task-1", auth.Grant{OneTimePassword: true})
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	d := again.tunnelDialer("task-1", token, key, testenv.Signer(t))
	hello, hash := d.Hello(), auth.HashOneTimePassword(password)
	hello.PasswordHash = hash[:] // as an agent would send that was not told
	d.Hello = func() tunnel.Hello { return hello }
	l, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.CloseNow()
	if err := again.usePassword("task-1", password); err == nil {
		t.Error("it lets in again")
	}
}

// TestOneTimePasswordPerToken: an agent that makes up another password each time it
// dials fills no memory of what was used, and lets in one guest.
func TestOneTimePasswordPerToken(t *testing.T) {
	w := newWorld(t, withPasswords)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	d := w.tunnelDialer("task-1", w.tokenFor("task-1", auth.Grant{OneTimePassword: true}), key, testenv.Signer(t))
	hello := d.Hello()
	for i := range 2 {
		password := auth.NewOneTimePassword()
		hash := auth.HashOneTimePassword(password)
		hello.PasswordHash = hash[:]
		d.Hello = func() tunnel.Hello { return hello }
		l, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer l.CloseNow()
		if err := w.usePassword("task-1", password); (err == nil) != (i == 0) {
			t.Errorf("password %d: %v", i+1, err)
		}
	}
}

// tokenFor mints a host token with a grant.
func (w *world) tokenFor(task string, grant auth.Grant) string {
	w.t.Helper()
	raw, err := auth.MintToken(w.tokenKey, auth.Token{Task: auth.TaskID(task), ID: rand.Text(), Expires: time.Now().Add(time.Hour), Grant: grant})
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}
