package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// TestTokenIsUsedOnce: a copy of a token lets nobody in, whether the agent that
// used it is there, has gone for good, or the gateway was started again.
func TestTokenIsUsedOnce(t *testing.T) {
	state := t.TempDir()
	w := newWorldWith(t, gateway.Options{StateDir: state}, func(s *gateway.Settings) { s.Limits.HostGrace = time.Millisecond })
	k := testenv.NewKey(t, w.dir, "alice")
	token := w.token("task-1", time.Now(), k)
	keys := filepath.Join(w.dir, "agent")
	keep := func(a *agent.Agent) { a.StateDir = keys }
	first := w.startAgent(token, keep)
	if r := w.refusal(token); r.Code != tunnel.CodeReplayed || r.Retry {
		t.Errorf("a copy was refused with %+v, want code replayed and no retry", r)
	}
	if out, err := w.sshCommand("task-1", k, "true").CombinedOutput(); err != nil {
		t.Errorf("the agent that had the task lost it: %v: %s", err, out)
	}
	first.stop()
	eventually(t, "the agent is gone", func() bool { return w.metric("stagedoor_tunnels") == "0" })
	if r := w.refusal(token); r.Code != tunnel.CodeReplayed {
		t.Errorf("a copy was refused with %+v after the agent had gone, want code replayed", r)
	}
	prints := regexp.MustCompile(`first_agent=(SHA256:\S+) second_agent=(SHA256:\S+)`).FindStringSubmatch(w.log.String())
	if prints == nil || prints[1] == prints[2] {
		t.Errorf("the log does not name both agents")
	}
	if strings.Contains(w.log.String(), token) {
		t.Error("the token is in the log")
	}
	w.server.Close()

	w = w.restart(gateway.Options{StateDir: state})
	if r := w.refusal(token); r.Code != tunnel.CodeReplayed {
		t.Errorf("a copy was refused with %+v by the next gateway, want code replayed", r)
	}
	w.startAgent(token, keep) // the same agent may come again
	if out, err := w.sshCommand("task-1", k, "echo back").CombinedOutput(); err != nil || string(out) != "back\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// restart is another gateway with the same settings and keys.
func (w *world) restart(o gateway.Options) *world {
	w.t.Helper()
	next := newWorldWith(w.t, o, func(s *gateway.Settings) {
		address := s.Address
		*s = w.settings
		s.Address = address
	})
	next.hostKey, next.tokenKey, next.roots = w.hostKey, w.tokenKey, w.roots
	return next
}

// TestUseThatCannotBeNoted: nobody is let in when a use would be forgotten.
func TestUseThatCannotBeNoted(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, gateway.Options{StateDir: state})
	w.server.FailUsedTokens()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var refusal *tunnel.Refusal
	a := &agent.Agent{Gateway: w.https, Token: w.token("task-1", time.Now()), TLSConfig: &tls.Config{RootCAs: w.roots}, Dir: w.dir,
		State: func(s tunnel.State) {
			if errors.As(s.Err, &refusal) || s.Kind == tunnel.StateConnected {
				cancel()
			}
		}}
	a.Run(ctx)
	if refusal == nil || refusal.Code != tunnel.CodeUnavailable || !refusal.Retry {
		t.Errorf("refused with %+v, want code unavailable and another try", refusal)
	}
}
