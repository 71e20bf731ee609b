package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/jwks"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// TestTokenKeySetDown: an agent is told to try again while the keys cannot be had,
// and that its token is bad only by somebody who knows.
func TestTokenKeySetDown(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	site := testenv.NewTLSServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "1"}}})
	}))
	set, err := jwks.New(site.URL, &jwks.Options{RootCAs: testenv.RootsOf(site)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	w := newWorld(t, func(s *gateway.Settings) { s.Tokens = &auth.TokenVerifier{KeySets: jwks.Sets{set}} })
	dial := func(signs ed25519.PrivateKey) string {
		t.Helper()
		w.tokenKey = signs
		_, agentKey, _ := ed25519.GenerateKey(rand.Reader)
		l, err := w.tunnelDialer("task-1", w.token("task-1", time.Now()), agentKey, testenv.Signer(t)).Dial(t.Context())
		if err == nil {
			l.CloseNow()
			return "admitted"
		}
		return refusalCode(err)
	}
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	if got := dial(key); got != tunnel.CodeUnavailable {
		t.Errorf("while nobody knows the key: %q, want %s", got, tunnel.CodeUnavailable)
	}
	up.Store(true)
	set.Renew()
	if got := dial(key); got != "admitted" {
		t.Errorf("by a key of the set: %q", got)
	}
	if got := dial(stranger); got != tunnel.CodeBadToken {
		t.Errorf("by another: %q, want %s", got, tunnel.CodeBadToken)
	}
}
