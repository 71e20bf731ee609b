package forge

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// pinnedForges are all ways by which an ID leads to keys.
func pinnedForges(t *testing.T, fn func(t *testing.T, f *fake, change func(*Config))) {
	token := func(c *Config) { c.Forges[0].Token = "secret" }
	for name, one := range map[string]struct {
		kind   Kind
		change func(*Config)
	}{
		"github":           {GitHub, nil},
		"github, API only": {GitHub, func(c *Config) { c.Forges[0].KeysFromAPI = true }},
		"gitlab":           {GitLab, nil},
		"gitlab, token":    {GitLab, token},
		"gitea":            {Gitea, nil},
		"gitea, API only":  {Gitea, func(c *Config) { token(c); c.Forges[0].KeysFromAPI = true }},
	} {
		t.Run(name, func(t *testing.T) { fn(t, newFake(t, one.kind), one.change) })
	}
}

func wantName(t testing.TB, r *Resolver, a, want string, keys ...ssh.PublicKey) {
	t.Helper()
	got := r.Expand(t.Context(), []Account{account(t, a)})[0]
	if got.Err != nil || got.Name != want || lines(got.Keys) != lines(keys) {
		t.Fatalf("%s: %q, %v\n%swant %q\n%s", a, got.Name, got.Err, lines(got.Keys), want, lines(keys))
	}
}

func TestPinned(t *testing.T) {
	pinnedForges(t, func(t *testing.T, f *fake, change func(*Config)) {
		key := newPublicKey(t)
		f.set(583231, person{login: "Alice", keys: line(key)})
		r := f.resolver(t, change)
		wantName(t, r, "forge:alice#583231", "forge:alice", key)
	})
}

// TestIDAlone: the forge tells the name, except GitLab to strangers.
func TestIDAlone(t *testing.T) {
	pinnedForges(t, func(t *testing.T, f *fake, change func(*Config)) {
		key := newPublicKey(t)
		f.set(7, person{login: "alice", keys: line(key)})
		r := f.resolver(t, change)
		want := "forge:alice"
		if f.kind == GitLab && change == nil {
			want = "forge:#7"
		}
		wantName(t, r, "forge:#7", want, key)
	})
}

// TestNameWasTakenOver is what pinning is for: alice becomes bob, and somebody
// else becomes alice.
func TestNameWasTakenOver(t *testing.T) {
	pinnedForges(t, func(t *testing.T, f *fake, change func(*Config)) {
		hers, taker := newPublicKey(t), newPublicKey(t)
		f.set(7, person{login: "alice", keys: line(hers)})
		r := f.resolver(t, change)
		wantKeys(t, r, "forge:alice#7", hers)

		f.set(7, person{login: "bob", keys: line(hers)})
		f.set(8, person{login: "alice", keys: line(taker)})
		f.clock.Advance(5 * time.Minute)
		wantKeys(t, r, "forge:alice#7", hers)
		wantKeys(t, f.resolver(t, change), "forge:alice#7", hers) // nor from the start
		wantKeys(t, r, "forge:alice", taker)                      // as nothing was pinned

		f.clock.Advance(time.Hour) // names are looked up again
		want := "forge:bob"
		if f.kind == GitLab && change == nil {
			want = "forge:#7"
		}
		wantName(t, r, "forge:alice#7", want, hers)

		f.remove(7)
		f.clock.Advance(5 * time.Minute)
		if keys, err := r.Keys(t.Context(), account(t, "forge:alice#7")); !errors.Is(err, ErrNoAccount) {
			t.Errorf("after the account is gone: %v, %v", keys, err)
		}
		if _, ok := r.Known(account(t, "forge:alice#7")); ok {
			t.Error("it is still known")
		}
	})
}

// TestTakenOverWhileReading: the name changes hands between the two requests.
func TestTakenOverWhileReading(t *testing.T) {
	for _, kind := range []Kind{GitHub, Gitea} {
		f := newFake(t, kind)
		hers, taker := newPublicKey(t), newPublicKey(t)
		f.set(7, person{login: "bob", keys: line(hers)})
		f.set(8, person{login: "alice", keys: line(taker)})
		r := f.resolver(t, nil)
		f.fault(func(_ http.ResponseWriter, q *http.Request) bool {
			if strings.HasPrefix(q.URL.Path, "/api/") { // carol it is, when asked who
				f.set(7, person{login: "carol", keys: line(hers)})
				f.set(9, person{login: "bob", keys: line(taker)})
			}
			return false
		})
		wantName(t, r, "forge:alice#7", "forge:carol", hers)
	}
}

// TestRestlessName: an account that has another name each time is given up on.
func TestRestlessName(t *testing.T) {
	f := newFake(t, GitHub)
	f.set(7, person{login: "a"})
	r := f.resolver(t, nil)
	f.fault(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.HasPrefix(q.URL.Path, "/api/") {
			_, p, _ := f.byID("7")
			f.set(7, person{login: p.login + "a"})
		}
		return false
	})
	if _, err := r.Keys(t.Context(), account(t, "forge:#7")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if n := len(f.requests()); n > 2*maxRenames {
		t.Errorf("%d requests", n)
	}
}

// TestIDIsAskedAgainForNewKeys: while only known keys are listed, the ID is looked
// up once an hour. A key that is new is not believed without.
func TestIDIsAskedAgainForNewKeys(t *testing.T) {
	for _, noETag := range []bool{false, true} {
		f := newFake(t, GitHub)
		f.noETag = noETag
		one, two := newPublicKey(t), newPublicKey(t)
		f.set(7, person{login: "alice", keys: line(one) + line(two)})
		r := f.resolver(t, nil)
		wantKeys(t, r, "forge:alice#7", one, two)
		f.requests()
		ask := func(ids int, want ...ssh.PublicKey) {
			t.Helper()
			f.clock.Advance(5 * time.Minute)
			wantKeys(t, r, "forge:alice#7", want...)
			if got := strings.Count(strings.Join(f.requests(), "\n"), "/api/v3/user/7"); got != ids {
				t.Fatalf("the ID was looked up %d times, want %d (no ETag: %v)", got, ids, noETag)
			}
		}
		ask(0, one, two)
		f.set(7, person{login: "alice", keys: line(two)})
		ask(0, two)
		f.set(7, person{login: "alice", keys: line(one) + line(two)})
		ask(1, one, two)
		for range 11 {
			ask(0, one, two)
		}
		ask(1, one, two)
	}
}

// TestRedirectedName: forges redirect the old name of an account. The ID is
// asked where to.
func TestRedirectedName(t *testing.T) {
	for _, kind := range []Kind{GitHub, Gitea} {
		f := newFake(t, kind)
		key := newPublicKey(t)
		f.set(7, person{login: "bob", keys: line(key)})
		r := f.resolver(t, nil)
		f.fault(func(w http.ResponseWriter, q *http.Request) bool {
			if strings.Contains(q.URL.Path, "alice") {
				http.Redirect(w, q, "/bob", http.StatusMovedPermanently)
				return true
			}
			return false
		})
		wantKeys(t, r, "forge:alice#7", key)
		if _, err := r.Keys(t.Context(), account(t, "forge:alice")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("without an ID: %v", err)
		}
	}
}

// TestLyingAPI: answers about other accounts, and names that are none, are not
// believed.
func TestLyingAPI(t *testing.T) {
	for _, body := range []string{
		`{"id":8,"login":"mallory"}`, `{"login":"mallory"}`, `{"id":7}`, `{"id":7,"login":"../mallory"}`, `{"id":7,"login":"a%2fb"}`,
		`{"id":7,"ID":7,"Login":"mallory"}`, `{"id":7,"login":"mallory","id":7}`, `{"id":"7","login":"mallory"}`, `{"id":7.5,"login":"mallory"}`,
		`[]`, `null`, `"mallory"`, ``, `{"id":7,"login":"mallory"`, `{"id":7,"login":null}`, `<html>`,
	} {
		f := newFake(t, GitHub)
		f.set(8, person{login: "mallory", keys: line(newPublicKey(t))})
		r := f.resolver(t, nil)
		f.fault(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.HasPrefix(q.URL.Path, "/api/") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(body))
			return true
		})
		keys, err := r.Keys(t.Context(), account(t, "forge:mallory#7"))
		if !errors.Is(err, ErrUnavailable) || len(keys) > 0 {
			t.Errorf("%s: %v, %v", body, keys, err)
			continue
		}
		testenv.CheckText(t, err)
	}
}

// TestBlockedOnGitLab: with a token GitLab says so.
func TestBlockedOnGitLab(t *testing.T) {
	f := newFake(t, GitLab)
	f.set(7, person{login: "alice", keys: line(newPublicKey(t)), state: "blocked"})
	r := f.resolver(t, func(c *Config) { c.Forges[0].Token = "secret" })
	if _, err := r.Keys(t.Context(), account(t, "forge:#7")); !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %v", err)
	}
}

// TestGitLabKeyMembers: keys that expire, and those for signing commits alone.
func TestGitLabKeyMembers(t *testing.T) {
	f := newFake(t, GitLab)
	key := newPublicKey(t)
	f.set(1, person{login: "a", keys: line(key), extra: `,"usage_type":"signing"`})
	f.set(2, person{login: "b", keys: line(key), extra: `,"usage_type":"auth_and_signing","expires_at":"2026-03-01T12:03:00.000Z"`})
	f.set(3, person{login: "c", keys: line(key), extra: `,"usage_type":"auth","expires_at":null`})
	r := f.resolver(t, nil)
	wantKeys(t, r, "forge:#1")
	wantKeys(t, r, "forge:#2", key)
	wantKeys(t, r, "forge:#3", key)
	f.clock.Advance(3 * time.Minute) // no request
	wantKeys(t, r, "forge:#2")
	wantKeys(t, r, "forge:#3", key)
}
