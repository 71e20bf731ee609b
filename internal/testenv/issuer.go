package testenv

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is a CI provider that signs ID tokens, with real TLS. It is an issuer
// under each path: URL/github is another than URL/gitlab. At URL/request it hands
// tokens to jobs as GitHub Actions does.
type Issuer struct {
	*httptest.Server
	t   testing.TB
	key *rsa.PrivateKey

	mu     sync.Mutex     // guards what follows
	job    map[string]any // claims of the job that asks
	secret string         // by which it does
	people people
}

// issuerKey takes a while to make, so there is one.
var issuerKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// NewIssuer starts an issuer. It ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	key, err := issuerKey()
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{t: t, key: key}
	i.Server = httptest.NewTLSServer(i)
	t.Cleanup(i.Close)
	return i
}

// Token signs claims for an audience, completed by an ID and times.
func (i *Issuer) Token(audience string, claims map[string]any) string {
	all := map[string]any{
		"jti": rand.Text(), "aud": audience, "iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
	}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		i.t.Error(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: i.key, KeyID: "1"}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		i.t.Error(err)
		return ""
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		i.t.Error(err)
		return ""
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		i.t.Error(err)
	}
	return raw
}

// Job has a job with these claims ask for tokens at URL/request, by a secret.
func (i *Issuer) Job(secret string, claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.secret, i.job = secret, claims
}

// ServeHTTP serves discovery documents, keys and tokens.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if i.intercepted(w, r) {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.servePeople(w, r) {
		return
	}
	var answer any
	if issuer, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
		answer = map[string]any{
			"issuer": i.URL + issuer, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
			"authorization_endpoint": i.URL + issuer + "/authorize", "token_endpoint": i.URL + issuer + "/token",
			"response_types_supported": []string{"id_token", "code"}, "subject_types_supported": []string{"public"},
		}
	}
	switch {
	case r.URL.Path == "/keys":
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}}
	case r.URL.Path == "/request" && i.secret != "" && r.Header.Get("Authorization") == "Bearer "+i.secret:
		answer = map[string]any{"count": 1, "value": i.Token(r.URL.Query().Get("audience"), i.job)}
	}
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}
