package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/auth/jwks"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A keySite publishes key sets under its paths.
type keySite struct {
	*httptest.Server
	clock *testenv.Clock

	mu     sync.Mutex // guards what follows
	sets   map[string]jose.JSONWebKeySet
	before http.HandlerFunc // nil: answer as usual
	asked  int
}

func newKeySite(t testing.TB) *keySite {
	s := &keySite{clock: new(testenv.Clock), sets: map[string]jose.JSONWebKeySet{}}
	s.Server = testenv.NewTLSServer(t, s)
	return s
}

func (s *keySite) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.before != nil {
		s.before(w, r)
		return
	}
	json.NewEncoder(w).Encode(s.sets[r.URL.Path])
}

// publish has a path list the public halves of keys, named by their algorithm.
func (s *keySite) publish(t testing.TB, path string, keys ...crypto.Signer) {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, key := range keys {
		alg, err := algorithmOf(key)
		if err != nil {
			alg = jose.RS256 // too weak to have one
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: string(alg), Use: "sig"})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets[path] = set
}

func (s *keySite) fault(before http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// requests are those since the last call.
func (s *keySite) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

// verifier verifies by the sets under paths.
func (s *keySite) verifier(t testing.TB, paths ...string) *TokenVerifier {
	t.Helper()
	v := &TokenVerifier{Now: s.clock.Now}
	for _, path := range paths {
		set, err := jwks.New(s.URL+path, &jwks.Options{RootCAs: testenv.RootsOf(s.Server), Now: s.clock.Now, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		v.KeySets = append(v.KeySets, set)
	}
	t.Cleanup(v.KeySets.Close)
	return v
}

// TestTokenByKeySet: tokens of each kind count by the set that has their key,
// and beside keys of files.
func TestTokenByKeySet(t *testing.T) {
	s, keys := newKeySite(t), signingKeys(t)
	s.publish(t, "/a", keys["EdDSA"], keys["RS256"])
	s.publish(t, "/b", keys["ES256"])
	v := s.verifier(t, "/a", "/b")
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
	for alg, key := range keys {
		if token, err := v.Verify(t.Context(), mint(t, key)); err != nil || token.Task != someTask {
			t.Errorf("%s: %v", alg, err)
		}
	}
	if n := s.requests(); n != 2 {
		t.Errorf("%d requests for two sets", n)
	}
	file := newKey(t)
	v.Keys = []any{publicOf(file), someSecret}
	for _, key := range []any{file, someSecret, keys["ES256"]} {
		if _, err := v.Verify(t.Context(), mint(t, key)); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
	// A secret that is wrong is none of the sets' business.
	if _, err := v.Verify(t.Context(), mint(t, []byte(strings.Repeat("x", 32)))); !errors.Is(err, ErrTokenInvalid) || !strings.Contains(err.Error(), "signature is not by a key") || s.requests() != 0 {
		t.Errorf("%v", err)
	}
}

// TestTokenMatrix: what must not be accepted is not, whether keys are of files or
// of a key set, and of all kinds.
func TestTokenMatrix(t *testing.T) {
	s, keys := newKeySite(t), signingKeys(t)
	weak := rsaKeyOf(t, 1024)
	s.publish(t, "/keys", keys["EdDSA"], keys["ES256"], keys["RS256"], weak)
	verifiers := map[string]*TokenVerifier{
		"files":   verifierFor(keys["EdDSA"].Public(), keys["ES256"].Public(), keys["RS256"].Public()),
		"key set": s.verifier(t, "/keys"),
	}
	others := signingKeys(t)
	others["RS256"] = rsaKeyOf(t, 2048)
	verifiers["both"] = &TokenVerifier{Keys: verifiers["files"].Keys, KeySets: verifiers["key set"].KeySets, Now: s.clock.Now}
	for kind, v := range verifiers {
		for alg, key := range keys {
			signed := func(change map[string]any) string { return signJWT(t, key, claims(t, change)) }
			if _, err := v.Verify(t.Context(), signed(nil)); err != nil {
				t.Fatalf("%s, %s: %v", kind, alg, err)
			}
			der, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			public := jwstest.PEM(key)
			bad := map[string]string{
				"alg none":              jwstest.Compact(`{"alg":"none"}`, claims(t, nil), jwstest.Unsigned),
				"HS256 with the PEM":    jwstest.Compact(headerHS256, claims(t, nil), jwstest.HS256(public)),
				"HS256, PEM trimmed":    jwstest.Compact(headerHS256, claims(t, nil), jwstest.HS256(bytes.TrimSpace(public))),
				"HS256 with the DER":    jwstest.Compact(headerHS256, claims(t, nil), jwstest.HS256(der)),
				"a key too short":       jwstest.Compact(`{"alg":"RS256","kid":"RS256"}`, claims(t, nil), jwstest.RS256(weak)),
				"another key":           signJWT(t, others[alg], claims(t, nil)),
				"a kid that is unknown": jwstest.Compact(`{"alg":"EdDSA","kid":"new"}`, claims(t, nil), jwstest.EdDSA(newKey(t))),
				"wrong aud":             signed(map[string]any{"aud": "vault"}),
				"future iat":            signed(map[string]any{"iat": noon.Add(time.Minute).Unix()}),
				"future nbf":            signed(map[string]any{"nbf": noon.Add(time.Minute).Unix()}),
				"an empty task":         signed(map[string]any{"task": ""}),
				"an empty jti":          signed(map[string]any{"jti": ""}),
				"an empty aud":          signed(map[string]any{"aud": ""}),
				"huge":                  signed(map[string]any{"x": strings.Repeat("x", MaxTokenSize)}),
				"a byte changed":        flip(signed(nil)),
			}
			for what, raw := range bad {
				if token, err := v.Verify(t.Context(), raw); token != nil || !errors.Is(err, ErrTokenInvalid) {
					t.Errorf("%s, %s, %s: %v, %v", kind, alg, what, token, err)
				} else {
					testenv.CheckText(t, err)
				}
			}
			if _, err := v.Verify(t.Context(), signed(map[string]any{"iat": 1, "exp": 2})); !errors.Is(err, ErrTokenExpired) {
				t.Errorf("%s, %s, expired: %v", kind, alg, err)
			}
		}
	}
}

func signJWT(t testing.TB, key crypto.Signer, payload string) string {
	t.Helper()
	var parsed map[string]any
	if err := json.Unmarshal([]byte(payload), &parsed); err != nil {
		t.Fatal(err)
	}
	raw, err := sign(key, "JWT", parsed, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// flip changes a character in the midst of the claims.
func flip(raw string) string {
	i := strings.IndexByte(raw, '.') + 20
	c := byte('A')
	if raw[i] == c {
		c = 'B'
	}
	return raw[:i] + string(c) + raw[i+1:]
}

// TestKeySetDown: that nothing can be verified is told apart from a token that is
// bad, and who redirects does not choose the keys.
func TestKeySetDown(t *testing.T) {
	key := jwstest.P256()
	elsewhere := newKeySite(t)
	elsewhere.publish(t, "/keys", key)
	for what, fault := range map[string]http.HandlerFunc{
		"down":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"cut off":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirecting": http.RedirectHandler(elsewhere.URL+"/keys", http.StatusFound).ServeHTTP,
		"garbage":     func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"empty":       func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":[]}`)) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newKeySite(t)
			s.publish(t, "/keys", key)
			s.fault(fault)
			v := s.verifier(t, "/keys")
			_, err := v.Verify(t.Context(), mint(t, key))
			if !errors.Is(err, ErrTokenUnverified) || errors.Is(err, ErrTokenInvalid) || strings.Contains(err.Error(), s.URL) {
				t.Fatalf("%v", err)
			}
			testenv.CheckText(t, err)
			// Back again, it is asked after a while.
			s.fault(nil)
			s.clock.Advance(time.Minute)
			if _, err := v.Verify(t.Context(), mint(t, key)); err != nil {
				t.Fatal(err)
			}
			// Down again, what it said last counts for a day.
			s.fault(fault)
			s.clock.Advance(23 * time.Hour)
			v.Now = func() time.Time { return noon }
			if _, err := v.Verify(t.Context(), mint(t, key)); err != nil {
				t.Errorf("a day later: %v", err)
			}
			s.clock.Advance(2 * time.Hour)
			if _, err := v.Verify(t.Context(), mint(t, key)); !errors.Is(err, ErrTokenUnverified) {
				t.Errorf("another two hours later: %v", err)
			}
		})
	}
	if n := elsewhere.requests(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// TestKeySetRotation: a new key counts at once, and the old one ends with the
// copy that has it.
func TestKeySetRotation(t *testing.T) {
	s, old, next := newKeySite(t), jwstest.P256(), jwstest.P256()
	s.publish(t, "/keys", old)
	v := s.verifier(t, "/keys")
	good := func(key crypto.Signer) error { _, err := v.Verify(t.Context(), mint(t, key)); return err }
	if err := good(old); err != nil {
		t.Fatal(err)
	}
	s.publish(t, "/keys", next)
	s.clock.Advance(time.Minute)
	if err := good(old); err != nil {
		t.Errorf("before anybody could know better: %v", err)
	}
	if err := good(next); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if err := good(old); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("the old key: %v", err)
	}

	// Renewed on demand, nobody is let in by the copy from before.
	last := jwstest.P256()
	s.publish(t, "/keys", last)
	v.KeySets.Renew()
	if err := good(next); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("the key that was withdrawn: %v", err)
	}
	if err := good(last); err != nil {
		t.Error(err)
	}
}

// TestKeySetsSideBySide: one that is down keeps nobody out whose key another has,
// and does not make them wait.
func TestKeySetsSideBySide(t *testing.T) {
	s, key := newKeySite(t), jwstest.P256()
	s.publish(t, "/good", key)
	asked := make(chan struct{}, 100)
	held := testenv.NewTLSServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	v := s.verifier(t, "/good")
	if _, err := v.Verify(t.Context(), mint(t, key)); err != nil {
		t.Fatal(err)
	}
	set, err := jwks.New(held.URL, &jwks.Options{RootCAs: testenv.RootsOf(held), Now: s.clock.Now, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	v.KeySets = jwks.Sets{set, v.KeySets[0]}
	if _, err := v.Verify(t.Context(), mint(t, key)); err != nil {
		t.Errorf("beside a set that never answers: %v", err)
	}
	<-asked // it was tried, though
	set.Close()
	if _, err := v.Verify(t.Context(), mint(t, newKey(t))); !errors.Is(err, ErrTokenUnverified) {
		t.Errorf("a token that the one that is down could know: %v", err)
	}
}
