package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestBrowserRealClient: the real ssh shows the link, waits without an Enter, and
// runs its command.
func TestBrowserRealClient(t *testing.T) {
	w := newSignInWorld(t, nil)
	w.grantTo("task-1", "corp:alice")
	w.issuer.SignedIn(alice)
	cmd := w.sshCommand("task-1", testenv.NewKey(t, w.dir, "unknown"), "echo in; exit 7")
	for i, arg := range cmd.Args {
		switch arg {
		case "BatchMode=yes":
			cmd.Args[i] = "BatchMode=no"
		case "LogLevel=ERROR":
			cmd.Args[i] = "LogLevel=INFO"
		}
	}
	var screen, out testenv.Output
	cmd.Stderr, cmd.Stdout = &screen, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if !screen.Wait(ctx, func(s string) bool { return strings.Contains(s, "goes on by itself") }, nil) {
		t.Fatalf("no link:\n%s", screen.String())
	}
	w.browser().SignIn(linkIn.FindString(screen.String()), "corp")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 7 || out.String() != "in\n" {
		t.Errorf("%v: %q\n%s", err, out.String(), screen.String())
	}
}

// TestBrowserLeavesOthersAlone: neither a key that is known nor a script is ever
// asked to wait.
func TestBrowserLeavesOthersAlone(t *testing.T) {
	w := newSignInWorld(t, nil)
	known, unknown := testenv.NewKey(t, w.dir, "known"), testenv.NewKey(t, w.dir, "unknown")
	w.startAgent(w.token("task-1", time.Now(), known))
	if out, err := w.sshCommand("task-1", known, "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("a known key: %v: %s", err, out)
	}
	out, err := w.sshCommand("task-1", unknown, "echo in").CombinedOutput() // in batch mode
	if err == nil || !strings.Contains(string(out), "Permission denied (publickey,keyboard-interactive)") {
		t.Errorf("a script: %v: %s", err, out)
	}
	if log := w.log.String(); strings.Contains(log, "by a browser: ") {
		t.Errorf("somebody was asked to wait:\n%s", log)
	}
}

// TestBrowserManyWait: guests who wait take no place from those with keys; beyond
// the bound the oldest goes, and those of one address keep to their share.
func TestBrowserManyWait(t *testing.T) {
	const most = 40
	w := newSignInWorld(t, nil, func(s *gateway.Settings) {
		s.Limits.Unauthenticated, s.Limits.UnauthenticatedPerSource = 4, 4
		s.Limits.BrowserWaiting, s.Limits.BrowserWaitingPerSource = 2*most, most
	})
	k := testenv.NewKey(t, w.dir, "known")
	w.startAgent(w.token("task-1", time.Now(), k))
	first := w.guest("task-1")
	for range most - 1 {
		w.guest("task-1")
	}
	if out, err := w.sshCommand("task-1", k, "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("a known key: %v: %s", err, out)
	}
	var words string
	_, err := w.dial("task-1", ssh.KeyboardInteractive(func(_, text string, _ []string, _ []bool) ([]string, error) {
		words += text
		return nil, nil
	}))
	if err == nil || !strings.Contains(words, "too many people") || linkIn.MatchString(words) {
		t.Errorf("one too many of an address: %v: %s", err, words)
	}
	if p := w.browser().Open(first.link); p.Status != http.StatusOK {
		t.Errorf("the first one's link: %d", p.Status)
	}
	w.server.Close() // ends all that wait
}

// TestBrowserEnds: a guest who goes, whose time is up, or whose gateway drains, takes
// its link along.
func TestBrowserEnds(t *testing.T) {
	for name, end := range map[string]func(*signInWorld, *waiting){
		"the gateway drains": func(w *signInWorld, _ *waiting) {
			ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
			defer cancel()
			if err := w.server.Drain(ctx); err != nil {
				t.Error(err)
			}
		},
		"its time is up": func(*signInWorld, *waiting) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSignInWorld(t, nil, func(s *gateway.Settings) {
				if name == "its time is up" {
					s.Limits.BrowserTimeout = 100 * time.Millisecond
				}
			})
			g := w.guest("task-1")
			end(w, g)
			if in, _ := g.outcome(t); in {
				t.Error("it was let in")
			}
		})
	}
}

// TestBrowserGuestGoes: whoever goes while somebody signs in for it is let in
// nowhere, and the person is told.
func TestBrowserGuestGoes(t *testing.T) {
	w := newSignInWorld(t, nil)
	w.grantTo("task-1", "corp:alice")
	w.issuer.SignedIn(alice)
	nc, err := net.Dial("tcp", w.ssh)
	if err != nil {
		t.Fatal(err)
	}
	link := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ssh.NewClientConn(nc, "", &ssh.ClientConfig{User: "task-1", HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
			Auth: []ssh.AuthMethod{ssh.KeyboardInteractive(func(_, text string, _ []string, _ []bool) ([]string, error) {
				link <- linkIn.FindString(text)
				return nil, nil
			})}})
	}()
	at := await(t, link, "a link")
	b := w.browser()
	led := b.Press(at, b.Open(at), "corp", nil).To()
	nc.Close()
	<-ended
	eventually(t, "the link is over", func() bool { return b.Open(at).Status == http.StatusNotFound })
	if p := b.Open(led); p.Status != http.StatusNotFound || strings.Contains(p.Text, "You are in") {
		t.Errorf("%d\n%s", p.Status, p.Text)
	}
	if strings.Contains(w.log.String(), "guest signed in") {
		t.Error("it was let in")
	}
}

// TestBrowserKickAndBlock: an operator ends and refuses people by their name, under
// whatever login they come back.
func TestBrowserKickAndBlock(t *testing.T) {
	w := newSignInWorld(t, nil)
	w.grantTo("task-1", "github:alice#583231", "github:#583231", "github:renamed")
	account := func(login string) { w.issuer.SignedIn(map[string]any{"id": 583231, "login": login}) }
	account("alice")
	g := w.guest("task-1")
	w.browser().SignIn(g.link, "github")
	if in, words := g.outcome(t); !in {
		t.Fatalf("%v: %s", g.err, words)
	}
	const name = "github:alice#583231"
	eventually(t, "the operator sees who is in, and how", func() bool {
		who := w.asksAdmin(http.MethodGet, gateway.AdminGuestsPath, "")
		return strings.Contains(who, `"identity":"`+name+`"`) && strings.Contains(who, `"method":"browser"`)
	})
	w.asksAdmin(http.MethodPost, gateway.AdminBlockPath, fmt.Sprintf(`{"identity": %q}`, name))
	await(t, connectionEnd(g.conn), "the guest to be thrown out")
	for _, login := range []string{"alice", "renamed"} {
		account(login)
		again := w.guest("task-1")
		w.browser().SignIn(again.link, "github")
		if in, _ := again.outcome(t); in {
			t.Errorf("let in again as %s", login)
		}
	}
}

// connectionEnd is closed when a connection has ended.
func connectionEnd(c *ssh.Client) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Wait()
	}()
	return ended
}

// asksAdmin asks the admin API, and returns the JSON.
func (w *world) asksAdmin(method, path, body string) string {
	w.t.Helper()
	question := httptest.NewRequest(method, path, strings.NewReader(body))
	question.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	w.server.AdminHandler().ServeHTTP(answer, question)
	if answer.Code != http.StatusOK {
		w.t.Errorf("%s %s: %s", path, body, answer.Body)
	}
	return answer.Body.String()
}
