package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// TestRenewalKeyRotation: agents whose tokens have ended come back while the key
// that signs renewals is changed, and after the old one is gone.
func TestRenewalKeyRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	r := newRelay(t, w.https)
	in := make(chan struct{}, 16) // when the agent has its renewal; the gateway's log is ahead of that
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) {
		a.Gateway = r.Addr().String()
		first := a.Registered
		a.Registered = func(r agent.Registration) {
			in <- struct{}{}
			first(r)
		}
	})
	await(t, in, "the agent to register")
	comesBack := func(why string) {
		t.Helper()
		await(t, in, "the agent to come back "+why)
	}
	strangers, _, _ := ed25519.GenerateKey(rand.Reader)
	_, next, _ := ed25519.GenerateKey(rand.Reader)
	old := w.settings.RenewalKey
	reload := func(signs ed25519.PrivateKey, others ...ed25519.PublicKey) {
		t.Helper()
		s := w.settings
		s.Tokens = &auth.TokenVerifier{Keys: []any{strangers}} // its token counts no more
		s.RenewalKey, s.OtherRenewalKeys = signs, others
		if err := w.server.Reload(s); err != nil {
			t.Fatal(err)
		}
	}
	reload(old, public(next)) // everywhere, where there are several gateways
	r.cut()
	comesBack("by the old key, which still signs")
	reload(next, public(old))
	comesBack("told that the new key signs")
	reload(next)
	r.cut()
	comesBack("by the new key")
	if out, err := w.sshCommand("task-1", k, "echo back").CombinedOutput(); err != nil || string(out) != "back\n" {
		t.Errorf("%v: %q", err, out)
	}
	if n := strings.Count(w.log.String(), "agents dial again"); n != 1 {
		t.Errorf("agents were told to dial again %d times", n)
	}
}

// TestRenewalKeyWithdrawn: a renewal by a key that is not listed lets nobody back
// in. Whoever is connected is not sent to find out.
func TestRenewalKeyWithdrawn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	hostKey := testenv.Signer(t)
	l, err := w.tunnelDialer("task-1", w.token("task-1", time.Now()), key, hostKey).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	renewal := l.Welcome().Renewal
	_, next, _ := ed25519.GenerateKey(rand.Reader)
	s := w.settings
	s.RenewalKey = next
	if err := w.server.Reload(s); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.log.String(), "agents dial again") {
		t.Error("agents are sent away")
	}
	l.CloseNow()
	again := w.tunnelDialer("task-1", "", key, hostKey)
	first := again.Hello
	again.Hello = func() tunnel.Hello {
		h := first()
		h.Token, h.Renewal = "", renewal
		return h
	}
	if _, err := again.Dial(t.Context()); refusalCode(err) != tunnel.CodeBadToken {
		t.Errorf("by a key that is gone: %v", err)
	}
	s.OtherRenewalKeys = []ed25519.PublicKey{public(w.settings.RenewalKey)}
	if err := w.server.Reload(s); err != nil {
		t.Fatal(err)
	}
	back, err := again.Dial(t.Context())
	if err != nil {
		t.Fatalf("by a key that is listed: %v", err)
	}
	defer back.CloseNow()
	if _, err := auth.VerifyRenewal([]ed25519.PublicKey{public(next)}, back.Welcome().Renewal, time.Now()); err != nil {
		t.Errorf("the new key does not sign: %v", err)
	}
}
