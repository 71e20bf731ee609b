package issuer

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/auth/jwks"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when tests with a clock of their own begin.
var noon = testenv.Noon

const gateway = "https://gateway.example.com" // the audience

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A ci is the issuer of a CI provider: discovery document and keys by HTTPS.
type ci struct {
	*httptest.Server
	discovered atomic.Int64
	fetched    atomic.Int64

	mu       sync.Mutex
	document http.HandlerFunc // nil: the right one
	keys     http.HandlerFunc // nil: key 1
}

func newCI(t testing.TB) *ci {
	t.Helper()
	s := &ci{}
	s.Server = testenv.NewTLSServer(t, http.HandlerFunc(s.serve))
	return s
}

func (s *ci) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	document, keys := s.document, s.keys
	s.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		s.discovered.Add(1)
		if document == nil {
			document = s.documentOf(s.URL + strings.TrimSuffix(r.URL.Path, "/.well-known/openid-configuration"))
		}
		document(w, r)
	case r.URL.Path == "/jwks":
		s.fetched.Add(1)
		if keys == nil {
			keys = keysOf("1", jwstest.RSA())
		}
		keys(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *ci) answers(document, keys http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.document, s.keys = document, keys
}

func (s *ci) documentOf(issuer string) http.HandlerFunc {
	return jsonOf(map[string]any{
		"issuer": issuer, "jwks_uri": s.URL + "/jwks", "id_token_signing_alg_values_supported": []string{"RS256"},
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
	})
}

func jsonOf(v any) http.HandlerFunc {
	data := must(json.Marshal(v))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(data)
	}
}

func keysOf(id string, key crypto.Signer) http.HandlerFunc {
	return jsonOf(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: id, Use: "sig"}}})
}

func (s *ci) options() (*Options, *testenv.Clock) {
	c := new(testenv.Clock)
	return &Options{Keys: jwks.Options{
		RootCAs: testenv.RootsOf(s.Server), Now: c.Now, Refresh: 10 * time.Minute, MinInterval: time.Minute, MaxStale: 5 * time.Hour, Timeout: time.Minute,
	}}, c
}

// verifier returns one for tokens of this issuer by a profile.
func (s *ci) verifier(t testing.TB, p Profile, change ...func(*Options)) (*Verifier, *testenv.Clock) {
	t.Helper()
	o, c := s.options()
	for _, f := range change {
		f(o)
	}
	if p.Issuer == "" {
		p.Issuer = s.URL
	}
	v, err := New(p, gateway, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, c
}

// simple is a profile with as little as can be.
func simple() Profile { return Profile{Name: "ci", Task: "ci-{job_id}"} }

// claimsOf are those of a good token at noon, with members replaced, or with nil
// removed.
func (s *ci) claimsOf(change map[string]any) map[string]any {
	c := map[string]any{
		"iss": s.URL, "aud": gateway, "sub": "job", "jti": "4a576b35-ff09-41c5-af2c-ca62dd89b76a",
		"iat": noon.Unix(), "nbf": noon.Add(-5 * time.Minute).Unix(), "exp": noon.Add(5 * time.Minute).Unix(), "job_id": "7",
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// token signs claims as the issuer does.
func (s *ci) token(change map[string]any) string {
	return signed(string(must(json.Marshal(s.claimsOf(change)))))
}

func signed(payload string) string {
	return jwstest.Compact(`{"typ":"JWT","alg":"RS256","kid":"1"}`, payload, jwstest.RS256(jwstest.RSA()))
}

func wantGood(t testing.TB, v *Verifier, token string) *Identity {
	t.Helper()
	id, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wantBad checks that a token is refused as it should be, and with words.
func wantBad(t testing.TB, v *Verifier, token string, kind error, text string) {
	t.Helper()
	id, err := v.Verify(t.Context(), token)
	if !errors.Is(err, kind) || id != nil || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("%+v, error %v, want %v with %q", id, err, kind, text)
		return
	}
	for _, other := range []error{auth.ErrTokenInvalid, auth.ErrTokenExpired, auth.ErrTokenUnverified} {
		if other != kind && errors.Is(err, other) {
			t.Errorf("%v is %v, too", err, other)
		}
	}
	if s := err.Error(); len(s) > 800 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("error text %.1000q", s)
	}
	if len(token) > 40 && strings.Contains(err.Error(), token[len(token)-30:]) {
		t.Errorf("the error holds the token: %v", err)
	}
}

func marshal(v any) []byte { return must(json.Marshal(v)) }

func sign(key ed25519.PrivateKey, input []byte) []byte { return ed25519.Sign(key, input) }
