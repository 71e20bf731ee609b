package forge

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// answers replies with a body to every request.
func answers(contentType, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", contentType)
		w.Write([]byte(body))
		return true
	}
}

// brokenOff promises more than it sends.
func brokenOff(body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)+1))
		w.Write([]byte(body))
		panic(http.ErrAbortHandler)
	}
}

// endless never stops.
func endless(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", "text/plain")
	for {
		if _, err := w.Write([]byte(strings.Repeat("x", 4096))); err != nil {
			return true
		}
	}
}

// TestAnswersOfNoUse: whatever else a forge answers, the copy that there is
// counts on, and without one nobody gets in.
func TestAnswersOfNoUse(t *testing.T) {
	key := newPublicKey(t)
	many := ""
	for range maxKeys + 1 {
		many += line(newPublicKey(t))
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"500":                always(500),
		"503":                always(503, "Retry-After", "10"),
		"204":                always(204),
		"206":                always(206),
		"304 without asking": always(304),
		"401":                always(401),
		"403":                always(403),
		"400":                always(400),
		"410":                always(410),
		"to another host":    always(302, "Location", "https://evil.example/alice.keys"),
		"to http":            always(307, "Location", "http://127.0.0.1:1/alice.keys"),
		"to itself":          always(301, "Location", "/alice.keys"),
		"to nowhere":         always(302),
		"to the unprintable": always(302, "Location", "/\u009b31m\t\u202e"+strings.Repeat("x", 300)),
		"a page":             answers("text/html", line(key)),
		"a page, text":       answers("text/plain", "<html><head>\n"+line(key)),
		"no type":            answers("", line(key)),
		"an odd type":        answers("text/plain; charset", line(key)),
		"words":              answers("text/plain", "sign in first"),
		"a key without type": answers("text/plain", strings.Fields(line(key))[1]),
		"another type":       answers("text/plain", "ssh-rsa "+strings.Fields(line(key))[1]),
		"options":            answers("text/plain", "no-pty "+line(key)),
		"cut off in a key":   answers("text/plain", line(key)+line(key)[:40]),
		"binary":             answers("text/plain", "\x00\xff\x1b[2J ssh"),
		"too many":           answers("text/plain", many),
		"too long":           answers("text/plain", strings.Repeat("\n", maxBody+1)),
		"too long a line":    answers("text/plain", strings.Repeat("A", maxBody+1)),
		"endless":            endless,
		"broken off":         brokenOff(line(key)),
		"hangs up":           func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"huge header":        always(200, "X-Huge", strings.Repeat("x", 1<<20)),
		"encoded, unasked": func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			return answers("text/plain", "\x1f\x8b\x08")(w, q)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, GitHub)
			f.set(1, person{login: "alice", keys: line(key)})
			r := f.resolver(t, nil)
			wantKeys(t, r, "forge:alice", key)
			f.fault(fault)
			f.noETag = true
			f.clock.Advance(6 * time.Minute)
			wantKeys(t, r, "forge:alice", key) // stale

			fresh := f.resolver(t, nil)
			keys, err := fresh.Keys(t.Context(), account(t, "forge:alice"))
			if !errors.Is(err, ErrUnavailable) || len(keys) > 0 {
				t.Fatalf("without a copy: %v, %v", keys, err)
			}
			testenv.CheckText(t, err)
		})
	}
}

// TestUnusableKeys: weak and unknown kinds are dropped, the rest counts.
func TestUnusableKeys(t *testing.T) {
	good := newPublicKey(t)
	text := rsaLine(t, 1024) +
		"ssh-dss " + base64.StdEncoding.EncodeToString(ssh.Marshal(struct{ Type, Rest string }{"ssh-dss", "x"})) + "\n" +
		"ssh-mldsa-65 " + base64.StdEncoding.EncodeToString(ssh.Marshal(struct{ Type, Rest string }{"ssh-mldsa-65", "x"})) + " new\n" +
		certificateLine(t) + "\r\n\n  \n" + line(good) + strings.TrimSpace(line(good)) + " again \u00e9\r\n"
	f := newFake(t, GitHub)
	f.set(1, person{login: "alice", keys: text})
	wantKeys(t, f.resolver(t, nil), "forge:alice", good)
	wantKeys(t, f.resolver(t, func(c *Config) { c.Forges[0].KeysFromAPI = true }), "forge:alice", good)
}

func rsaLine(t testing.TB, bits int) string {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return line(key)
}

func certificateLine(t testing.TB) string {
	t.Helper()
	cert := &ssh.Certificate{Key: newPublicKey(t), SignatureKey: newPublicKey(t), Signature: &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)}}
	return string(ssh.MarshalAuthorizedKey(cert))
}

// TestMoreKeysThanAPage: what is beyond the first page is not forgotten
// silently.
func TestMoreKeysThanAPage(t *testing.T) {
	f := newFake(t, GitLab)
	f.set(1, person{login: "alice", keys: line(newPublicKey(t))})
	f.fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Link", `<https://x/?page=2>; rel="next", <https://x/?page=9>; rel="last"`)
		return false
	})
	r := f.resolver(t, nil)
	if _, err := r.Keys(t.Context(), account(t, "forge:#1")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	want := []string{"/api/v4/users/1/keys?per_page=100&limit=100"}
	if got := f.requests(); !slices.Equal(got, want) {
		t.Errorf("requests %q", got)
	}
}

func TestRateLimits(t *testing.T) {
	reset := fmt.Sprint(noon.Add(10 * time.Minute).Unix())
	date := noon.Add(10 * time.Minute).Format(http.TimeFormat)
	for _, test := range []struct {
		name    string
		status  int
		headers []string
		until   time.Duration
	}{
		{"429", 429, nil, time.Minute},
		{"429, seconds", 429, []string{"Retry-After", "600"}, 10 * time.Minute},
		{"429, date", 429, []string{"Retry-After", date}, 10 * time.Minute},
		{"429, nonsense", 429, []string{"Retry-After", "soon"}, time.Minute},
		{"429, past", 429, []string{"Retry-After", "0"}, time.Second},
		{"429, years", 429, []string{"Retry-After", "4000000000"}, time.Hour},
		{"429, overflow", 429, []string{"Retry-After", "99999999999999999999"}, time.Minute},
		{"403, GitHub", 403, []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset}, 10 * time.Minute},
		{"403, secondary", 403, []string{"Retry-After", "90"}, 90 * time.Second},
		{"429, GitLab", 429, []string{"RateLimit-Remaining", "0", "RateLimit-Reset", reset}, 10 * time.Minute},
		{"503", 503, []string{"Retry-After", "600"}, 10 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, GitHub)
			key := newPublicKey(t)
			f.set(1, person{login: "alice", keys: line(key)})
			f.set(2, person{login: "bob", keys: line(key)})
			r := f.resolver(t, func(c *Config) { c.NegativeFor, c.FreshFor, c.StaleFor = 1, 1, 2*time.Hour })
			wantKeys(t, r, "forge:alice", key)
			f.clock.Advance(1)
			f.fault(always(test.status, test.headers...))
			wantKeys(t, r, "forge:alice", key) // stale
			f.fault(nil)
			f.requests()

			f.clock.Advance(test.until - 2*time.Millisecond) // dates have whole seconds
			wantKeys(t, r, "forge:alice", key)
			if _, err := r.Keys(t.Context(), account(t, "forge:bob")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("another account meanwhile: %v", err)
			}
			wantRequests(t, f)
			f.clock.Advance(2 * time.Second)
			wantKeys(t, r, "forge:bob", key)
		})
	}
}

// TestForbiddenIsNoRateLimit: a 403 without a hint stops nobody else.
func TestForbiddenIsNoRateLimit(t *testing.T) {
	f := newFake(t, GitHub)
	f.set(2, person{login: "bob"})
	r := f.resolver(t, nil)
	f.fault(always(403, "X-RateLimit-Remaining", "59"))
	if _, err := r.Keys(t.Context(), account(t, "forge:alice")); err == nil {
		t.Fatal("no error")
	}
	f.fault(nil)
	wantKeys(t, r, "forge:bob")
}

// TestToken: it goes to the API alone, and into no text.
func TestToken(t *testing.T) {
	for kind, want := range map[Kind]string{GitHub: "Bearer s3cret", GitLab: "s3cret", Gitea: "token s3cret"} {
		f := newFake(t, kind)
		f.set(7, person{login: "alice", keys: line(newPublicKey(t))})
		r := f.resolver(t, func(c *Config) { c.Forges[0].Token = "s3cret" })
		if _, err := r.Keys(t.Context(), account(t, "forge:alice")); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Keys(t.Context(), account(t, "forge:alice#7")); err != nil {
			t.Fatal(err)
		}
		for i, asked := range f.requests() {
			token := ""
			if strings.HasPrefix(asked, "/api/") {
				token = want
			}
			if f.tokens[i] != token {
				t.Errorf("%s: %s came with %q, want %q", kind, asked, f.tokens[i], token)
			}
		}
		for _, fault := range []func(http.ResponseWriter, *http.Request) bool{
			always(401), always(403), always(302, "Location", "https://evil.example/"), always(500), func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		} {
			f.fault(fault)
			f.clock.Advance(2 * time.Minute)
			_, err := r.Keys(t.Context(), account(t, "forge:#8"))
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: error %v", kind, err)
			}
		}
		if text := fmt.Sprintf("%v %+v %#v %s", r.sites["forge"].Forge, r.sites["forge"].Forge, r.sites["forge"].Forge, r.config.Forges); strings.Contains(text, "s3cret") {
			t.Errorf("%s: printed as %s", kind, text)
		}
	}
}

// TestNewRefuses: what is wrong with a configuration is said, and no secret in it.
func TestNewRefuses(t *testing.T) {
	for name, forges := range map[string][]Forge{
		"no name":      {{Kind: GitHub}},
		"odd name":     {{Name: "git/hub", Kind: GitHub}},
		"twice":        {{Name: "github", Kind: GitHub}, {Name: "GitHub", Kind: GitHub}},
		"no kind":      {{Name: "a"}},
		"odd kind":     {{Name: "a", Kind: "svn"}},
		"no URL":       {{Name: "a", Kind: Gitea}},
		"http":         {{Name: "a", Kind: Gitea, URL: "http://example.com"}},
		"http, local":  {{Name: "a", Kind: Gitea, URL: "http://127.0.0.1"}},
		"ftp":          {{Name: "a", Kind: Gitea, URL: "ftp://example.com"}},
		"a password":   {{Name: "a", Kind: Gitea, URL: "https://u:s3cret@example.com"}},
		"unreadable":   {{Name: "a", Kind: Gitea, URL: "https://u:s3cret@exa mple.com:x"}},
		"no host":      {{Name: "a", Kind: Gitea, URL: "https://:443/"}},
		"a query":      {{Name: "a", Kind: Gitea, URL: "https://example.com/?private_token=s3cret"}},
		"API, http":    {{Name: "a", Kind: GitHub, APIURL: "http://example.com"}},
		"token, lines": {{Name: "a", Kind: GitHub, Token: "s3cret\n"}},
	} {
		r, err := New(Config{Forges: forges})
		if err == nil {
			r.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
		testenv.CheckText(t, err)
	}
}

func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		forge    Forge
		web, api string
	}{
		{Forge{Kind: GitHub}, "https://github.com", "https://api.github.com"},
		{Forge{Kind: GitHub, URL: "https://acme.ghe.com"}, "https://acme.ghe.com", "https://api.acme.ghe.com"},
		{Forge{Kind: GitHub, URL: "https://git.acme.example/"}, "https://git.acme.example/", "https://git.acme.example/api/v3"},
		{Forge{Kind: GitLab}, "https://gitlab.com", "https://gitlab.com/api/v4"},
		{Forge{Kind: GitLab, URL: "https://acme.example/gitlab"}, "https://acme.example/gitlab", "https://acme.example/gitlab/api/v4"},
		{Forge{Kind: Forgejo, URL: "https://codeberg.org"}, "https://codeberg.org", "https://codeberg.org/api/v1"},
		{Forge{Kind: Gitea, URL: "https://a.example", APIURL: "https://b.example/x"}, "https://a.example", "https://b.example/x"},
		{Forge{Kind: Gitea, URL: "http://[::1]:3000"}, "http://[::1]:3000", "http://[::1]:3000/api/v1"},
	} {
		web, api, err := test.forge.places(true)
		if err != nil || web.String() != test.web || api.String() != test.api {
			t.Errorf("%+v: %v, %v, %v", test.forge, web, api, err)
		}
	}
	r, err := New(Config{Forges: PublicForges()})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

// TestCheck asks nobody.
func TestCheck(t *testing.T) {
	f := newFake(t, GitHub)
	r := f.resolver(t, nil)
	for a, ok := range map[Account]bool{
		{Forge: "forge", Login: "alice"}:          true,
		{Forge: "forge", ID: 1}:                   true,
		{Forge: "forge"}:                          false,
		{Forge: "forge", ID: -1}:                  false,
		{Forge: "forge", Login: "Alice"}:          false,
		{Forge: "forge", Login: "a.b"}:            false,
		{Forge: "forge", Login: "../x", ID: 1}:    false,
		{Forge: "elsewhere", Login: "alice"}:      false,
		{Forge: "forge", Login: "a/../../b"}:      false,
		{Forge: "forge", Login: "a", ID: 1 << 40}: true,
	} {
		if err := r.Check(a); (err == nil) != ok {
			t.Errorf("%+v: %v", a, err)
		}
		if !ok {
			if _, err := r.Keys(t.Context(), a); !errors.Is(err, ErrUnavailable) {
				t.Errorf("Keys(%+v): %v", a, err)
			}
		}
	}
	wantRequests(t, f)
}

// TestTLS: no forge is believed that the roots do not vouch for, or that speaks a
// version of TLS that is too old.
func TestTLS(t *testing.T) {
	f := newFake(t, GitHub)
	f.set(1, person{login: "alice"})
	r := f.resolver(t, func(c *Config) { c.RootCAs = nil })
	if _, err := r.Keys(t.Context(), account(t, "forge:alice")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a forge that nobody vouches for: %v", err)
	}
	wantRequests(t, f)
}

// FuzzKeys: whatever a forge answers, what comes out may be used for signing in.
func FuzzKeys(f *testing.F) {
	key := line(newPublicKey(f))
	for _, s := range []string{"", key, key + key, "ssh-rsa AAAA", "<html>", key[:30], "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 x", `[{"key":"` + strings.TrimSpace(key) + `"}]`, `[{"key":"x","key":"y"}]`, "[[[[", `[{"expires_at":"2026-03-01T12:00:00Z"}]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fromPage, err := parseKeys(data)
		if err != nil {
			testenv.CheckText(t, err)
		}
		fromAPI, err := parseAPIKeys(data)
		if err != nil {
			testenv.CheckText(t, err)
		}
		for _, k := range append(fromPage, fromAPI...) {
			if again, err := ssh.ParsePublicKey([]byte(k.wire)); err != nil || string(again.Marshal()) != k.wire {
				t.Fatalf("%q becomes %v, %v", data, again, err)
			}
		}
	})
}
