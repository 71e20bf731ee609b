package issuer

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestBadDiscovery(t *testing.T) {
	elsewhere := newCI(t)
	cases := map[string]struct {
		document func(s *ci) http.HandlerFunc
		want     string
	}{
		"another issuer":  {func(s *ci) http.HandlerFunc { return s.documentOf("https://evil.example.com") }, "is of the issuer"},
		"with a slash":    {func(s *ci) http.HandlerFunc { return s.documentOf(s.URL + "/") }, "slash at the end"},
		"no issuer":       {func(s *ci) http.HandlerFunc { return jsonOf(map[string]any{"jwks_uri": s.URL + "/jwks"}) }, "is of the issuer"},
		"no keys":         {func(s *ci) http.HandlerFunc { return jsonOf(map[string]any{"issuer": s.URL}) }, "names no keys"},
		"keys by http":    {keysAt("http://127.0.0.1/jwks"), "https is needed"},
		"keys in a file":  {keysAt("file://localhost/etc/passwd"), "https is needed"},
		"keys no URL":     {keysAt(":"), "cannot be read"},
		"keys relative":   {keysAt("/jwks"), ""},
		"keys, password":  {keysAt("https://u:s3cret@127.0.0.1/jwks"), "password"},
		"only HS256":      {signsWith("HS256", "none"), "it signs with"},
		"garbage":         {answer("\x00\x1b[31m<html>" + strings.Repeat("<", 5000)), "discovery document"},
		"nothing":         {answer(""), "discovery document"},
		"huge":            {answer(`{"issuer":"` + strings.Repeat("x", 1<<20) + `"}`), "discovery document"},
		"wrong type":      {answer(`{"issuer":7}`), "discovery document"},
		"not there":       {func(*ci) http.HandlerFunc { return http.NotFound }, "status 404"},
		"an error":        {func(*ci) http.HandlerFunc { return status(500) }, "status 500"},
		"not modified":    {func(*ci) http.HandlerFunc { return status(304) }, "status 304"},
		"to another host": {func(*ci) http.HandlerFunc { return http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP }, "redirect"},
		"to another path": {func(*ci) http.HandlerFunc { return http.RedirectHandler("/x", http.StatusPermanentRedirect).ServeHTTP }, "redirect"},
		"cut off": {func(*ci) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				w.Write([]byte("{"))
			}
		}, "discovery document"},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			s := newCI(t)
			s.answers(c.document(s), nil)
			v, clock := s.verifier(t, simple())
			err := v.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\x1b") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %q", err, c.want)
			}
			// To others it is just not available.
			wantBad(t, v, s.token(nil), auth.ErrTokenUnverified, "try again")
			s.answers(nil, nil)
			clock.Advance(time.Minute)
			wantGood(t, v, s.token(nil))
			s.answers(c.document(s), nil)
			clock.Advance(time.Hour)
			wantGood(t, v, s.token(issuedAt(clock))) // by the keys from before
			if n := s.fetched.Load(); n > 1 {
				t.Errorf("keys were fetched %d times", n)
			}
		})
	}
	if n := elsewhere.discovered.Load() + elsewhere.fetched.Load(); n > 0 {
		t.Errorf("a redirect was followed")
	}
}

func issuedAt(c *testenv.Clock) map[string]any {
	return map[string]any{"iat": c.Now().Unix(), "exp": c.Now().Unix() + 300}
}

func keysAt(url string) func(*ci) http.HandlerFunc {
	return func(s *ci) http.HandlerFunc { return jsonOf(map[string]any{"issuer": s.URL, "jwks_uri": url}) }
}

func signsWith(algorithms ...string) func(*ci) http.HandlerFunc {
	return func(s *ci) http.HandlerFunc {
		return jsonOf(map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/jwks", "id_token_signing_alg_values_supported": algorithms})
	}
}

func answer(body string) func(*ci) http.HandlerFunc {
	return func(*ci) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) }
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestIssuerIsSlow(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, handlers := range [][2]http.HandlerFunc{{silent, nil}, {nil, silent}} {
		s := newCI(t)
		s.answers(handlers[0], handlers[1])
		v, _ := s.verifier(t, simple(), func(o *Options) { o.Keys.Timeout = 100 * time.Millisecond })
		wantBad(t, v, s.token(nil), auth.ErrTokenUnverified, "try again")
		if err := v.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "within 100ms") {
			t.Errorf("%v", err)
		}
	}
}

func TestIssuerIsDown(t *testing.T) {
	s := newCI(t)
	var logged strings.Builder // one attempt at a time, and it is waited for
	v, clock := s.verifier(t, simple(), func(o *Options) { o.Keys.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	s.answers(nil, status(503))
	for range 20 {
		wantBad(t, v, s.token(nil), auth.ErrTokenUnverified, "try again in a minute")
	}
	if d, f := s.discovered.Load(), s.fetched.Load(); d != 1 || f != 1 {
		t.Errorf("asked %d and %d times", d, f)
	}
	if !strings.Contains(logged.String(), "status 503") || !strings.Contains(logged.String(), s.URL) {
		t.Errorf("log: %s", logged.String())
	}
	s.answers(nil, nil)
	clock.Advance(time.Minute)
	wantGood(t, v, s.token(nil))
	s.answers(status(503), status(503))
	clock.Advance(4 * time.Hour)
	late := s.token(issuedAt(clock))
	wantGood(t, v, late)
	clock.Advance(time.Hour)
	wantBad(t, v, late, auth.ErrTokenUnverified, "")
}

func TestIssuerRotates(t *testing.T) {
	s := newCI(t)
	p := simple()
	p.Algorithms = []string{"RS256", "EdDSA"}
	v, clock := s.verifier(t, p)
	wantGood(t, v, s.token(nil))
	key := jwstest.Ed25519()
	s.answers(nil, keysOf("2", key))
	clock.Advance(time.Minute)
	next := jwstest.Compact(`{"alg":"EdDSA","kid":"2"}`, string(marshal(s.claimsOf(nil))), func(input []byte) []byte { return sign(key, input) })
	wantGood(t, v, next)
	clock.Advance(time.Minute)
	wantBad(t, v, s.token(nil), auth.ErrTokenInvalid, "not among those")
}

func TestUnknownKeyFlood(t *testing.T) {
	s := newCI(t)
	v, _ := s.verifier(t, simple())
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for j := range 10 {
				token := jwstest.Compact(fmt.Sprintf(`{"alg":"RS256","kid":"%d-%d"}`, i, j), string(marshal(s.claimsOf(nil))), func([]byte) []byte { return make([]byte, 256) })
				if _, err := v.Verify(t.Context(), token); err == nil {
					t.Error("accepted")
				}
			}
		})
	}
	wg.Wait()
	if d, f := s.discovered.Load(), s.fetched.Load(); d != 1 || f != 1 {
		t.Errorf("asked %d and %d times", d, f)
	}
	wantGood(t, v, s.token(nil))
}

// What is wrong with a token is not asked about.
func TestBadTokensAskNobody(t *testing.T) {
	s := newCI(t)
	v, _ := s.verifier(t, simple())
	for _, token := range []string{"", "a.b.c", jwstest.Compact(`{"alg":"none"}`, "{}", func([]byte) []byte { return nil }), strings.Repeat("a", 1<<20)} {
		wantBad(t, v, token, auth.ErrTokenInvalid, "")
	}
	if s.discovered.Load() != 0 {
		t.Error("the issuer was asked")
	}
}

// An issuer may have a path: those of CircleCI and Enterprise Servers do.
func TestIssuerWithPath(t *testing.T) {
	s := newCI(t)
	for _, path := range []string{"/org/0f", "/_services/token", "/slash/"} {
		p := simple()
		p.Issuer = s.URL + path
		if strings.HasSuffix(path, "/") {
			s.answers(s.documentOf(p.Issuer), nil)
		}
		v, _ := s.verifier(t, p)
		wantGood(t, v, s.token(map[string]any{"iss": s.URL + path}))
		wantBad(t, v, s.token(nil), auth.ErrTokenInvalid, "iss")
	}
}

func TestCloseIssuer(t *testing.T) {
	s := newCI(t)
	asked := make(chan struct{})
	s.answers(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}, nil)
	v, _ := s.verifier(t, simple())
	done := make(chan error)
	go func() {
		_, err := v.Verify(t.Context(), s.token(nil))
		done <- err
	}()
	<-asked
	v.Close()
	if err := <-done; err == nil {
		t.Error("accepted")
	}
}
