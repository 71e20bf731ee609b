package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestKeysAreCached(t *testing.T) {
	for _, kind := range []Kind{GitHub, GitLab, Gitea} {
		t.Run(string(kind), func(t *testing.T) {
			f := newFake(t, kind)
			one, two := newPublicKey(t), newPublicKey(t)
			f.set(1, person{login: "Alice", keys: line(one)})
			r := f.resolver(t, nil)

			wantKeys(t, r, "forge:alice", one)
			f.set(1, person{login: "Alice", keys: line(one) + line(two)})
			f.clock.Advance(5*time.Minute - 1)
			wantKeys(t, r, "forge:alice", one)
			wantRequests(t, f, "/alice.keys")

			f.clock.Advance(1)
			wantKeys(t, r, "forge:alice", one, two)
			wantRequests(t, f, "/alice.keys [etag]")

			f.clock.Advance(5 * time.Minute) // not modified
			wantKeys(t, r, "forge:alice", one, two)
			f.clock.Advance(5*time.Minute - 1)
			wantKeys(t, r, "forge:alice", one, two)
			wantRequests(t, f, "/alice.keys [etag]")

			f.set(1, person{login: "Alice"})
			f.clock.Advance(1)
			wantKeys(t, r, "forge:alice")
		})
	}
}

func wantRequests(t testing.TB, f *fake, want ...string) {
	t.Helper()
	if got := f.requests(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("requests %q, want %q", got, want)
	}
}

// TestForgeIsDown: what was said last counts for StaleFor, and a failure is
// remembered for NegativeFor.
func TestForgeIsDown(t *testing.T) {
	f := newFake(t, GitHub)
	key := newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(key)})
	r := f.resolver(t, nil)
	wantKeys(t, r, "forge:alice", key)
	f.fault(always(http.StatusBadGateway))
	f.requests()

	f.clock.Advance(30 * time.Minute)
	wantKeys(t, r, "forge:alice", key)
	wantKeys(t, r, "forge:alice", key)
	wantRequests(t, f, "/alice.keys [etag]")
	f.clock.Advance(time.Minute)
	wantKeys(t, r, "forge:alice", key)
	wantRequests(t, f, "/alice.keys [etag]")

	f.clock.Advance(29*time.Minute - 1)
	wantKeys(t, r, "forge:alice", key)
	f.clock.Advance(1) // an hour since it was confirmed
	if _, ok := r.Known(account(t, "forge:alice")); ok {
		t.Error("a copy of an hour is known")
	}
	_, err := r.Keys(t.Context(), account(t, "forge:alice"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "502") {
		t.Errorf("after an hour: %v", err)
	}

	f.fault(nil)
	f.clock.Advance(time.Minute)
	wantKeys(t, r, "forge:alice", key)
}

// TestAccountIsGone: a 404 ends a copy at once, and is asked for again after
// NegativeFor.
func TestAccountIsGone(t *testing.T) {
	f := newFake(t, GitHub)
	key := newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(key)})
	r := f.resolver(t, nil)
	wantKeys(t, r, "forge:alice", key)
	f.remove(1)
	f.clock.Advance(5 * time.Minute)
	f.requests()
	for range 3 {
		if _, err := r.Keys(t.Context(), account(t, "forge:alice")); !errors.Is(err, ErrNoAccount) {
			t.Fatalf("after the account is gone: %v", err)
		}
	}
	wantRequests(t, f, "/alice.keys [etag]")
	f.set(2, person{login: "alice", keys: line(key)})
	f.clock.Advance(time.Minute)
	wantKeys(t, r, "forge:alice", key)
}

// TestSingleFlight: many ask, the forge is asked once.
func TestSingleFlight(t *testing.T) {
	f := newFake(t, GitHub)
	key := newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(key)})
	r := f.resolver(t, nil)
	asked, release := make(chan struct{}, 100), make(chan struct{})
	f.fault(func(http.ResponseWriter, *http.Request) bool { asked <- struct{}{}; <-release; return false })
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if keys, err := r.Keys(t.Context(), account(t, "forge:alice")); err != nil || len(keys) != 1 {
				t.Errorf("Keys = %v, %v", keys, err)
			}
		})
	}
	<-asked
	close(release)
	wait.Wait()
	if n := len(f.requests()); n != 1 {
		t.Errorf("%d requests for one account", n)
	}
}

// TestLeaderGivesUp: who asked first hangs up, and another takes over; that it
// did says nothing about the forge.
func TestLeaderGivesUp(t *testing.T) {
	f := newFake(t, GitHub)
	key := newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(key)})
	r := f.resolver(t, nil)
	asked := make(chan struct{})
	f.fault(func(_ http.ResponseWriter, q *http.Request) bool {
		asked <- struct{}{}
		<-q.Context().Done()
		return true
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, second := make(chan error), make(chan error)
	go func() { _, err := r.Keys(ctx, account(t, "forge:alice")); first <- err }()
	<-asked
	go func() { _, err := r.Keys(t.Context(), account(t, "forge:alice")); second <- err }()
	f.fault(nil)
	cancel()
	if err := <-first; !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("the first to ask gets %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second gets %v", err)
	}
}

// TestSlowForge: a look-up ends after Timeout, and the failure is remembered.
func TestSlowForge(t *testing.T) {
	f := newFake(t, GitHub)
	r := f.resolver(t, func(c *Config) { c.Timeout = 20 * time.Millisecond })
	f.fault(func(_ http.ResponseWriter, q *http.Request) bool { <-q.Context().Done(); return true })
	for range 3 {
		_, err := r.Keys(t.Context(), account(t, "forge:alice"))
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("a slow forge: %v", err)
		}
		testenv.CheckText(t, err)
	}
	if n := len(f.requests()); n > 1 {
		t.Errorf("%d requests to a forge that does not answer", n)
	}
}

// TestFloodOfNames: neither requests nor memory grow with the names.
func TestFloodOfNames(t *testing.T) {
	f := newFake(t, GitHub)
	r := f.resolver(t, func(c *Config) { c.PerMinute, c.MaxAccounts = 20, 30 })
	for i := range 200 {
		a := Account{Forge: "forge", Login: fmt.Sprintf("nobody-%d", i)}
		if _, err := r.Keys(t.Context(), a); err == nil {
			t.Fatal("somebody is there")
		}
	}
	if n := len(f.requests()); n != 20 {
		t.Errorf("%d requests, 20 are allowed", n)
	}
	if len(r.entries) != 30 || r.recent.Len() != 30 {
		t.Errorf("%d accounts are remembered, 30 are allowed", len(r.entries))
	}
	f.clock.Advance(30 * time.Second)
	for i := range 200 {
		r.Keys(t.Context(), Account{Forge: "forge", Login: fmt.Sprintf("nobody-%d", i)})
	}
	if n := len(f.requests()); n != 10 {
		t.Errorf("%d requests after half a minute, 10 are allowed", n)
	}
}

// TestForgettingKeepsFlights: an account that is being looked up is not
// forgotten, and what finds no place is told so.
func TestForgettingKeepsFlights(t *testing.T) {
	f := newFake(t, GitHub)
	r := f.resolver(t, func(c *Config) { c.MaxAccounts = 1 })
	f.set(1, person{login: "alice"})
	asked, release := make(chan struct{}), make(chan struct{})
	f.fault(func(http.ResponseWriter, *http.Request) bool { asked <- struct{}{}; <-release; return false })
	done := make(chan error)
	go func() { _, err := r.Keys(t.Context(), account(t, "forge:alice")); done <- err }()
	<-asked
	if _, err := r.Keys(t.Context(), account(t, "forge:bob")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a place: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestExpand: accounts are looked up side by side, and each has its own result.
func TestExpand(t *testing.T) {
	good, slow := newFake(t, GitHub), newFake(t, Gitea)
	key := newPublicKey(t)
	good.set(7, person{login: "alice-now", keys: line(key)})
	seen := make(chan struct{})
	var once sync.Once
	good.fault(func(http.ResponseWriter, *http.Request) bool { once.Do(func() { close(seen) }); return false })
	slow.fault(func(w http.ResponseWriter, q *http.Request) bool {
		select {
		case <-seen: // the other one has been asked meanwhile
		case <-q.Context().Done():
		}
		return always(500)(w, q)
	})
	pool := testenv.RootsOf(good.Server)
	pool.AddCert(slow.Certificate())
	r := good.resolver(t, func(c *Config) {
		c.RootCAs = pool
		c.Forges = append(c.Forges, Forge{Name: "slow", Kind: Gitea, URL: slow.URL})
	})
	var accounts []Account
	for _, s := range []string{"slow:bob", "forge:alice#7", "forge:nobody", "elsewhere:carol", "slow:#8"} {
		accounts = append(accounts, account(t, s))
	}
	check := func(results []Result) {
		t.Helper()
		for i, want := range []error{ErrUnavailable, nil, ErrNoAccount, ErrUnavailable, ErrUnavailable} {
			if results[i].Account != accounts[i] || !errors.Is(results[i].Err, want) || want == nil && results[i].Err != nil {
				t.Errorf("%s: %+v, want %v", accounts[i], results[i], want)
			}
			if results[i].Err != nil {
				testenv.CheckText(t, results[i].Err)
			}
		}
		want := strings.TrimSpace(line(key)) + " forge:alice-now"
		if got := results[1].Lines(); len(got) != 1 || got[0] != want {
			t.Errorf("lines %q, want %q", got, want)
		}
	}
	check(r.Expand(t.Context(), accounts))

	slow.fault(func(_ http.ResponseWriter, q *http.Request) bool { <-q.Context().Done(); return true })
	good.clock.Advance(time.Minute) // bob and #8 may be asked for again
	good.fault(nil)
	if _, err := r.Keys(t.Context(), account(t, "forge:nobody")); !errors.Is(err, ErrNoAccount) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	check(r.Expand(ctx, accounts)) // what there was time for
	if got := r.Expand(t.Context(), nil); len(got) != 0 {
		t.Errorf("nobody expands to %v", got)
	}
}

// TestRefresh: as often as Watch calls it, a key that was removed stops counting
// within FreshFor.
func TestRefresh(t *testing.T) {
	f := newFake(t, GitHub)
	kept, removed := newPublicKey(t), newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(kept) + line(removed)})
	r := f.resolver(t, nil)
	accounts := []Account{account(t, "forge:alice")}
	r.Expand(t.Context(), accounts)
	f.clock.Advance(1)
	f.set(1, person{login: "alice", keys: line(kept)})
	for range 5 {
		f.clock.Advance(time.Minute)
		r.Refresh(t.Context(), accounts)
	}
	if got, ok := r.Known(accounts[0]); !ok || lines(got) != line(kept) {
		t.Errorf("after 5 minutes %v is known", got)
	}
	wantRequests(t, f, "/alice.keys", "/alice.keys [etag]")
}

func TestWatch(t *testing.T) {
	f := newFake(t, GitHub)
	f.set(1, person{login: "alice"})
	rounds := make(chan struct{})
	f.fault(func(http.ResponseWriter, *http.Request) bool {
		f.clock.Advance(time.Minute)
		rounds <- struct{}{}
		return false
	})
	r := f.resolver(t, func(c *Config) { c.FreshFor = 20 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Watch(ctx, func() []Account { return []Account{account(t, "forge:alice"), account(t, "forge:alice")} }, nil)
	}()
	for range 3 {
		<-rounds
	}
	cancel()
	<-done
}

// TestWatchIsFair: with more accounts than requests, none is left out for long,
// those that do not exist included.
func TestWatchIsFair(t *testing.T) {
	f := newFake(t, GitHub)
	r := f.resolver(t, func(c *Config) { c.PerMinute = 10 })
	var accounts []Account
	for i := range 40 {
		login := fmt.Sprintf("user-%02d", i)
		if i%2 == 0 {
			f.set(int64(i+1), person{login: login})
		}
		accounts = append(accounts, account(t, "forge:"+login))
	}
	for range 2 {
		for range 5 { // a minute more than requests need: of those at a time, some come early
			r.Refresh(t.Context(), r.inTurn(accounts))
			f.clock.Advance(time.Minute)
		}
		asked := map[string]bool{}
		for _, request := range f.requests() {
			asked[strings.Fields(request)[0]] = true
		}
		if len(asked) != len(accounts) {
			t.Fatalf("%d accounts were asked for in five minutes, want %d", len(asked), len(accounts))
		}
	}
}

// TestDeadForge: one that does not answer three times is left alone for a while,
// so that looking up others does not take long.
func TestDeadForge(t *testing.T) {
	f := newFake(t, GitHub)
	key := newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(key)})
	r := f.resolver(t, nil)
	f.fault(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	ask := func(want int) {
		t.Helper()
		for i := range 10 {
			r.Keys(t.Context(), Account{Forge: "forge", ID: int64(100 + i)})
			r.Keys(t.Context(), Account{Forge: "forge", Login: fmt.Sprint("nobody-", i)})
		}
		if n := len(f.requests()); n != want {
			t.Fatalf("%d requests to a dead forge, want %d", n, want)
		}
		f.clock.Advance(time.Minute)
	}
	ask(2 * patience) // the API and the pages, each for itself
	ask(2)
	f.fault(nil)
	wantKeys(t, r, "forge:alice", key)
	ask(1 + 20)
}
