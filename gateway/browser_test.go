package gateway_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/person"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A signInWorld is a gateway where people sign in by a browser.
type signInWorld struct {
	*world
	issuer *testenv.Issuer
}

// newSignInWorld makes one with two providers: corp is of OpenID Connect, and github
// is as GitHub. Rules let in more people than the grants do.
func newSignInWorld(t *testing.T, rules []person.Rule, change ...func(*gateway.Settings)) *signInWorld {
	return newSignInWorldWith(t, gateway.Options{}, rules, change...)
}

func newSignInWorldWith(t *testing.T, o gateway.Options, rules []person.Rule, change ...func(*gateway.Settings)) *signInWorld {
	t.Helper()
	w := &signInWorld{newWorldWith(t, o, func(s *gateway.Settings) { s.Guests = auth.AnyOf{s.Guests, &person.Authorizer{Rules: rules}} }), testenv.NewIssuer(t)}
	in := &gateway.SignIn{Relevant: (&person.Authorizer{Rules: rules}).Relevant}
	w.settings.HTTPSAddress = w.https
	for _, c := range []person.Config{
		{Name: "corp", Kind: person.OIDC, URL: w.issuer.URL + "/corp"},
		{Name: "github", Kind: person.GitHub, URL: w.issuer.URL},
	} {
		c.ClientID, c.ClientSecret, c.RootCAs = testenv.ClientID, testenv.ClientSecret, w.issuer.Roots()
		p, err := person.New(c)
		if err != nil {
			t.Fatal(err)
		}
		in.Providers = append(in.Providers, p)
	}
	w.settings.SignIn = in
	for _, f := range change {
		f(&w.settings)
	}
	if err := w.server.Reload(w.settings); err != nil {
		t.Fatal(err)
	}
	return w
}

// grantTo starts the agent of a task that accounts may enter.
func (w *signInWorld) grantTo(task string, accounts ...string) {
	w.t.Helper()
	w.startAgent(w.tokenFor(task, auth.Grant{Accounts: accounts}))
}

// A waiting guest has been shown a link.
type waiting struct {
	link  string
	code  string // to compare
	texts <-chan string
	end   chan struct{} // closed when it is in, or refused
	conn  *ssh.Client   // set before end is closed; nil: it was refused
	err   error
}

var (
	linkIn = regexp.MustCompile(`https://\S+/signin/\S+`)
	codeIn = regexp.MustCompile(`[B-Z]{4}-[B-Z]{4}`)
)

// guest comes without a key that is known, and returns when it has a link.
func (w *signInWorld) guest(user string, signers ...ssh.Signer) *waiting {
	w.t.Helper()
	texts := make(chan string, 4)
	g := &waiting{texts: texts, end: make(chan struct{})}
	go func() {
		defer close(g.end)
		g.conn, g.err = w.dial(user, ssh.PublicKeys(signers...), ssh.KeyboardInteractive(func(_, text string, questions []string, _ []bool) ([]string, error) {
			texts <- text
			return make([]string, len(questions)), nil
		}))
	}()
	w.t.Cleanup(func() {
		<-g.end
		if g.conn != nil {
			g.conn.Close()
		}
	})
	text := await(w.t, texts, "a link")
	g.link, g.code = linkIn.FindString(text), codeIn.FindString(text)
	if g.link == "" || g.code == "" {
		w.t.Errorf("no link in:\n%s", text)
	}
	return g
}

// outcome is what the guest sees in the end.
func (g *waiting) outcome(t *testing.T) (in bool, words string) {
	t.Helper()
	await(t, g.end, "the guest's sign-in to end")
	for {
		select {
		case text := <-g.texts:
			words += text
		default:
			return g.conn != nil, words
		}
	}
}

// browser is one that a person sits at.
func (w *signInWorld) browser() *testenv.Browser {
	roots := w.issuer.Roots()
	cert, _ := w.settings.Certificate(nil)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		w.t.Fatal(err)
	}
	roots.AddCert(leaf)
	return testenv.NewBrowser(w.t, roots, nil)
}

var alice = map[string]any{"sub": "a1b2-c3", "preferred_username": "Alice", "groups": []string{"dev", "ops"}, "email": "alice@example.com", "email_verified": true}

// TestBrowserSignIn: whoever has no key is let in by a provider that knows them, if
// the grant names their account, and is called by a name that stays theirs.
func TestBrowserSignIn(t *testing.T) {
	for provider, test := range map[string]struct {
		account, identity string
		person            map[string]any
	}{
		"corp":   {"corp:alice", "corp:alice#a1b2-c3", alice},
		"github": {"github:renamed#583231", "github:alice#583231", map[string]any{"id": 583231, "login": "Alice", "type": "User"}},
	} {
		t.Run(provider, func(t *testing.T) {
			w := newSignInWorld(t, nil)
			w.grantTo("task-1", test.account)
			w.issuer.SignedIn(test.person)
			g := w.guest("task-1", testenv.Signer(t))
			b := w.browser()
			confirm := b.Open(g.link)
			if !strings.Contains(confirm.Text, g.code) || !strings.Contains(confirm.Text, "127.0.0.1") || strings.Contains(confirm.Text, "<script") {
				t.Errorf("the page shows\n%s", confirm.Text)
			}
			if done := b.Open(b.Press(g.link, confirm, provider, nil).To()); done.Status != http.StatusOK || !strings.Contains(done.Text, "You are in") || !strings.Contains(done.Text, test.identity) {
				t.Errorf("%d\n%s", done.Status, done.Text)
			}
			if in, words := g.outcome(t); !in {
				t.Fatalf("%v: %s", g.err, words)
			}
			s, err := g.conn.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if out, err := s.Output("echo in"); err != nil || string(out) != "in\n" {
				t.Errorf("%v: %s", err, out)
			}
			log := w.log.String()
			if !strings.Contains(log, "identity="+test.identity) && !strings.Contains(log, fmt.Sprintf("identity=%q", test.identity)) || strings.Contains(log, testenv.ClientSecret) {
				t.Errorf("the log says\n%s", log)
			}
		})
	}
}

// TestBrowserPolicy holds the page to what it may do.
func TestBrowserPolicy(t *testing.T) {
	w := newSignInWorld(t, nil)
	g := w.guest("<b>task</b>")
	b := w.browser()
	p := b.Open(g.link)
	for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
		if got := p.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if policy := p.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy: %s", policy)
	}
	if cookie := p.Header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-") || !strings.Contains(cookie, "; HttpOnly; Secure; SameSite=Lax") {
		t.Errorf("cookie: %s", cookie)
	}
	if strings.Contains(p.Text, "<b>task") {
		t.Errorf("the name is not escaped:\n%s", p.Text)
	}
	w.server.Close()
	if in, _ := g.outcome(t); in {
		t.Error("it was let in")
	}
}

// TestBrowserTellsNothing: the link is offered, and a person refused, in the same
// way under every name.
func TestBrowserTellsNothing(t *testing.T) {
	w := newSignInWorld(t, []person.Rule{{Provider: "corp", Claims: map[string][]string{"groups": {"root"}}}})
	w.grantTo("task-1", "corp:bob")
	w.issuer.SignedIn(alice)
	seen := func(user string) string {
		g := w.guest(user)
		p := w.browser().SignIn(g.link, "corp")
		in, words := g.outcome(t)
		if in {
			t.Fatalf("alice was let in to %q", user)
		}
		if !strings.Contains(words, "corp:alice#a1b2-c3") || !strings.Contains(p.Text, "Not open to you") {
			t.Errorf("she is not told: %s\n%s", words, p.Text)
		}
		return fmt.Sprint(p.Status, p.Text, strings.ReplaceAll(words, fmt.Sprintf("%.64q", user), "NAME"), g.err)
	}
	existing := seen("task-1")
	for _, other := range []string{"task-2", "root", "no such task!", ""} {
		if got := seen(other); got != existing {
			t.Errorf("as %q one sees\n%s\nbut at an existing task\n%s", other, got, existing)
		}
	}
}

// TestBrowserIsHeldToItsOwn plays what others could do with a link, or what leads
// back from a provider.
func TestBrowserIsHeldToItsOwn(t *testing.T) {
	w := newSignInWorld(t, nil)
	w.grantTo("task-1", "corp:alice")
	w.issuer.SignedIn(alice)
	g := w.guest("task-1")
	b := w.browser()
	confirm := b.Open(g.link)

	for name, change := range map[string]func(*http.Request){
		"a foreign origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.example.com") },
		"a foreign site":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"no origin":        func(r *http.Request) { r.Header.Set("Origin", "null") },
		"no token":         func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("provider=corp")), 13 },
	} {
		if p := b.Press(g.link, confirm, "corp", nil, change); p.Status != http.StatusForbidden || p.Leads() {
			t.Errorf("a button pressed with %s: %d\n%s", name, p.Status, p.Text)
		}
	}
	if p := w.browser().Press(g.link, confirm, "corp", nil); p.Status != http.StatusForbidden {
		t.Errorf("a button of another browser: %d", p.Status)
	}
	if p := b.Press(g.link, confirm, "nobody", nil); p.Status != http.StatusBadRequest {
		t.Errorf("a provider that is none: %d", p.Status)
	}

	// callback is where the provider sends the browser to, without going there.
	callback := func(b *testenv.Browser) string {
		t.Helper()
		var back string
		stop := *b.Client
		stop.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			back = r.URL.String()
			return http.ErrUseLastResponse
		}
		at := b.Press(g.link, confirm, "corp", nil).To()
		resp, err := stop.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return back
	}
	first := callback(b)
	second := callback(b) // the button was pressed twice
	for name, test := range map[string]struct {
		b  *testenv.Browser
		at string
	}{
		"another browser":      {w.browser(), first},
		"another provider":     {b, strings.Replace(first, "/callback/corp", "/callback/github", 1)},
		"a state that is none": {b, strings.Replace(first, "state=", "state=A", 1)},
		"no state":             {b, first[:strings.Index(first, "?")]},
	} {
		if p := test.b.Open(test.at); p.Status != http.StatusNotFound {
			t.Errorf("%s: %d\n%s", name, p.Status, p.Text)
		}
	}
	// The code of another sign-in does not fit the verifier of this one.
	u1, _ := url.Parse(first)
	u2, _ := url.Parse(second)
	q := u1.Query()
	q.Set("code", u2.Query().Get("code"))
	u1.RawQuery = q.Encode()
	if p := b.Open(u1.String()); p.Status != http.StatusForbidden || strings.Contains(p.Text, "You are in") {
		t.Errorf("the code of another sign-in: %d\n%s", p.Status, p.Text)
	}
	if p := b.Open(first); p.Status != http.StatusNotFound {
		t.Errorf("a state for the second time: %d", p.Status)
	}
	third := callback(b)
	if p := b.Open(third); p.Status != http.StatusOK {
		t.Errorf("after all that: %d\n%s", p.Status, p.Text)
	}
	if in, words := g.outcome(t); !in {
		t.Errorf("%v: %s", g.err, words)
	}
	for name, at := range map[string]string{"the link": g.link, "what led back": third, "the first button": second} {
		if p := b.Open(at); p.Status != http.StatusNotFound {
			t.Errorf("%s for the second time: %d\n%s", name, p.Status, p.Text)
		}
	}
}

// TestBrowserNonce: an ID token of another sign-in is none of this.
func TestBrowserNonce(t *testing.T) {
	for name, claims := range map[string]map[string]any{
		"another nonce":    {"sub": "a1b2-c3", "preferred_username": "alice", "nonce": "another"},
		"no nonce":         {"sub": "a1b2-c3", "preferred_username": "alice", "nonce": ""},
		"another audience": {"sub": "a1b2-c3", "preferred_username": "alice", "aud": "another"},
		"another issuer":   {"sub": "a1b2-c3", "preferred_username": "alice", "iss": "https://evil.example.com"},
		"expired":          {"sub": "a1b2-c3", "preferred_username": "alice", "exp": 1},
		"nobody":           {"sub": "", "preferred_username": "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSignInWorld(t, nil)
			w.grantTo("task-1", "corp:alice")
			w.issuer.SignedIn(claims)
			g := w.guest("task-1")
			if p := w.browser().SignIn(g.link, "corp"); p.Status != http.StatusForbidden || strings.Contains(p.Text, "You are in") {
				t.Errorf("%d\n%s", p.Status, p.Text)
			}
			w.server.Close()
			if in, _ := g.outcome(t); in {
				t.Error("it was let in")
			}
		})
	}
}

// TestBrowserProviderFails: the guest waits on while a provider is down, and the
// person can try again.
func TestBrowserProviderFails(t *testing.T) {
	w := newSignInWorld(t, nil)
	w.grantTo("task-1", "corp:alice")
	w.issuer.SignedIn(alice)
	g := w.guest("task-1")
	b := w.browser()
	for _, path := range []string{"/.well-known/openid-configuration", "/token", "/keys"} {
		w.issuer.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, path) {
				http.Error(rw, "down", http.StatusBadGateway)
				return true
			}
			return false
		})
		p := b.Press(g.link, b.Open(g.link), "corp", nil)
		if p.Leads() {
			p = b.Open(p.To())
		}
		if p.Status < 400 || !strings.Contains(p.Text, "Try again") {
			t.Errorf("%s: %d\n%s", path, p.Status, p.Text)
		}
	}
	w.issuer.Intercept(nil)
	w.issuer.SignedIn(nil)
	if p := b.SignIn(g.link, "corp"); !strings.Contains(p.Text, "Try again") {
		t.Errorf("nobody agreed: %d\n%s", p.Status, p.Text)
	}
	w.issuer.SignedIn(alice)
	if p := b.SignIn(g.link, "corp"); p.Status != http.StatusOK {
		t.Errorf("%d\n%s", p.Status, p.Text)
	}
	if in, words := g.outcome(t); !in {
		t.Errorf("%v: %s", g.err, words)
	}
}

// TestBrowserRules: the operator lets people in by what the provider says of them.
func TestBrowserRules(t *testing.T) {
	w := newSignInWorld(t, []person.Rule{
		{Provider: "corp", Claims: map[string][]string{"groups": {"o*"}, "email": {"*@example.com"}}, Tasks: []string{"ops-*"}},
	})
	w.startAgent(w.token("ops-1", time.Now()))
	w.startAgent(w.token("dev-1", time.Now()))
	unverified := map[string]any{"sub": "a1b2-c3", "groups": []string{"ops"}, "email": "alice@example.com", "email_verified": false}
	for _, test := range []struct {
		task string
		who  map[string]any
		in   bool
	}{{"ops-1", alice, true}, {"dev-1", alice, false}, {"ops-1", unverified, false}} {
		w.issuer.SignedIn(test.who)
		g := w.guest(test.task)
		w.browser().SignIn(g.link, "corp")
		if in, words := g.outcome(t); in != test.in {
			t.Errorf("%s: %v: %s", test.task, g.err, words)
		}
	}
}
