package person_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/person"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newProvider(t *testing.T, i *testenv.Issuer, kind string) *person.Provider {
	t.Helper()
	c := person.Config{Name: "corp", Kind: kind, URL: i.URL, ClientID: testenv.ClientID, ClientSecret: testenv.ClientSecret, RootCAs: i.Roots()}
	if kind == person.OIDC {
		c.URL += "/corp"
	}
	p, err := person.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// code goes where the browser is led, and returns what it comes back with.
func code(t *testing.T, i *testenv.Issuer, f *person.Flow) string {
	t.Helper()
	client := i.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Get(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	back, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || back.Query().Get("state") != f.State {
		t.Fatalf("%v: it comes back to %s", err, back)
	}
	return back.Query().Get("code")
}

// TestWhoItIs: an ID is what a name ends in, whatever a provider makes of it, and a
// login is none that could be taken for something else.
func TestWhoItIs(t *testing.T) {
	i := testenv.NewIssuer(t)
	for _, test := range []struct {
		kind   string
		person map[string]any
		want   string
	}{
		{person.OIDC, map[string]any{"sub": "auth0|5f7c", "preferred_username": "Alice.B"}, "corp:alice.b#auth0|5f7c"},
		{person.OIDC, map[string]any{"sub": "1"}, "corp:#1"},
		{person.OIDC, map[string]any{"sub": "1", "preferred_username": "a#2"}, "corp:#1"},
		{person.OIDC, map[string]any{"sub": "1", "preferred_username": "alice@example.com"}, "corp:#1"},
		{person.OIDC, map[string]any{"sub": "1", "preferred_username": []string{"alice"}}, "corp:alice#1"},
		{person.OIDC, map[string]any{"sub": "a b\n"}, "corp:#sha256-29b1aa0c56b9a67a8e8b7a8ff3a1b6a1"},
		{person.GitHub, map[string]any{"id": 7, "login": "Alice", "type": "User"}, "corp:alice#7"},
		{person.GitHub, map[string]any{"id": 7, "login": "acme", "type": "Organization"}, ""},
		{person.GitHub, map[string]any{"login": "alice"}, ""},
	} {
		i.SignedIn(test.person)
		p := newProvider(t, i, test.kind)
		f, err := p.Begin(t.Context(), "https://gateway.example.com/signin/callback/corp")
		if err != nil {
			t.Fatal(err)
		}
		who, err := p.Finish(t.Context(), f, code(t, i, f))
		switch {
		case test.want == "":
			if !errors.Is(err, person.ErrRefused) {
				t.Errorf("%v: %v, %v", test.person, who, err)
			}
		case err != nil:
			t.Errorf("%v: %v", test.person, err)
		case strings.Contains(test.want, "#sha256-"):
			if !strings.HasPrefix(who.Name(), "corp:#sha256-") || len(who.ID) != 39 {
				t.Errorf("%v: %s", test.person, who.Name())
			}
		case who.Name() != test.want:
			t.Errorf("%v: %s, want %s", test.person, who.Name(), test.want)
		}
	}
}

// TestProviderIsHeldToTime: whoever waits for a provider waits no longer than it
// wants to, and is told no secrets.
func TestProviderIsHeldToTime(t *testing.T) {
	i := testenv.NewIssuer(t)
	i.SignedIn(map[string]any{"sub": "1"})
	for _, kind := range []string{person.OIDC, person.GitHub} {
		p := newProvider(t, i, kind)
		f, err := p.Begin(t.Context(), "https://gateway.example.com/signin/callback/corp")
		if err != nil {
			t.Fatal(err)
		}
		given := code(t, i, f)
		ctx, cancel := context.WithCancel(t.Context())
		i.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			io.Copy(io.Discard, r.Body) // else nobody notices that the client goes
			cancel()
			<-r.Context().Done()
			return true
		})
		if who, err := p.Finish(ctx, f, given); !errors.Is(err, person.ErrUnavailable) || strings.Contains(err.Error(), given) || strings.Contains(err.Error(), testenv.ClientSecret) {
			t.Errorf("%v, %v", who, err)
		}
		i.Intercept(nil)
	}
}

// TestMistakes are told by what is wrong.
func TestMistakes(t *testing.T) {
	good := person.Config{Name: "corp", Kind: person.OIDC, URL: "https://login.example.com", ClientID: "a"}
	for want, change := range map[string]func(*person.Config){
		"":           func(*person.Config) {},
		"name":       func(c *person.Config) { c.Name = "a b" },
		"client_id":  func(c *person.Config) { c.ClientID = "" },
		"kind":       func(c *person.Config) { c.Kind = "saml" },
		"https":      func(c *person.Config) { c.URL = "http://login.example.com" },
		"openid":     func(c *person.Config) { c.Scopes = []string{"email"} },
		"github":     func(c *person.Config) { c.Name = "GitHub" },
		"names no h": func(c *person.Config) { c.URL = "login" },
	} {
		c := good
		change(&c)
		_, err := person.New(c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestAuthorizer: the number decides where there is one, and rules mean those whom
// they say.
func TestAuthorizer(t *testing.T) {
	now := time.Now()
	a := &person.Authorizer{Now: func() time.Time { return now }, Rules: []person.Rule{
		{Provider: "corp", Claims: map[string][]string{"groups": {"ops", "sre-*"}, "team": {"*"}}, Tasks: []string{"ops-*"}},
	}}
	alice := &auth.Person{Provider: "github", ID: "583231", Login: "alice"}
	ops := &auth.Person{Provider: "corp", ID: "1", Login: "ops", Claims: map[string][]string{"groups": {"dev", "sre-eu"}, "team": {"a"}}}
	for _, test := range []struct {
		who      *auth.Person
		task     string
		accounts []string
		until    time.Time
		in       bool
	}{
		{alice, "a", []string{"github:alice"}, time.Time{}, true},
		{alice, "a", []string{"GitHub:Alice"}, time.Time{}, true},
		{alice, "a", []string{"github:renamed#583231"}, time.Time{}, true},
		{alice, "a", []string{"github:#583231"}, now.Add(time.Second), true},
		{alice, "a", []string{"github:#583231"}, now, false},
		{alice, "a", []string{"github:alice#1", "gitlab:alice", "github:bob"}, time.Time{}, false},
		{alice, "a", nil, time.Time{}, false},
		{&auth.Person{Provider: "github", ID: "1"}, "a", []string{"github:#2", "github:"}, time.Time{}, false},
		{nil, "a", []string{"github:alice"}, time.Time{}, false},
		{ops, "ops-1", nil, time.Time{}, true},
		{ops, "dev-1", nil, time.Time{}, false},
		{&auth.Person{Provider: "other", ID: "1", Claims: ops.Claims}, "ops-1", nil, time.Time{}, false},
		{&auth.Person{Provider: "corp", ID: "1", Claims: map[string][]string{"groups": {"ops"}}}, "ops-1", nil, time.Time{}, false},
	} {
		grant := &auth.Grant{Accounts: test.accounts, Until: test.until, Permissions: []string{auth.PermitPTY}}
		p, err := a.Authorize(t.Context(), auth.Identity{Person: test.who}, auth.Task{ID: auth.TaskID(test.task), Grant: grant})
		if (err == nil) != test.in || err != nil && !errors.Is(err, auth.ErrDenied) {
			t.Errorf("%+v: %v, %v", test, p, err)
		}
		if test.in && auth.IdentityName(p) != test.who.Name() {
			t.Errorf("%+v is called %q", test.who, auth.IdentityName(p))
		}
	}
	if kept := a.Relevant(&auth.Person{Provider: "corp", Claims: map[string][]string{"groups": {"ops"}, "email": {"a@b"}}}); len(kept.Claims) != 1 {
		t.Errorf("kept are %v", kept.Claims)
	}
}
