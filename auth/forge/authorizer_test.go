package forge

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

var _ auth.Authorizer = (*Authorizer)(nil)

// TestZeroAuthorizer admits nobody.
func TestZeroAuthorizer(t *testing.T) {
	if p, err := new(Authorizer).Authorize(t.Context(), auth.Identity{}, auth.Task{}); !errors.Is(err, auth.ErrDenied) || p != nil {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestAuthorizer(t *testing.T) {
	f := newFake(t, GitHub)
	key, other := newPublicKey(t), newPublicKey(t)
	f.set(7, person{login: "alice-now", keys: line(key)})
	f.set(8, person{login: "bob", keys: line(other)})
	r := f.resolver(t, nil)
	accounts := []Account{account(t, "forge:nobody"), account(t, "forge:alice#7"), account(t, "forge:bob")}
	a := &Authorizer{Resolver: r, Now: f.clock.Now, Accounts: func(task auth.Task) []Account {
		if task.ID != "build" {
			return nil
		}
		return accounts
	}}
	task := func(id string, g *auth.Grant) auth.Task { return auth.Task{ID: auth.TaskID(id), Grant: g} }
	ask := func(key ssh.PublicKey, task auth.Task) (*ssh.Permissions, error) {
		return a.Authorize(t.Context(), auth.Identity{Method: "publickey", Key: key}, task)
	}

	if p, err := ask(key, task("build", &auth.Grant{})); !errors.Is(err, auth.ErrDenied) || p != nil {
		t.Errorf("before anything is known: %v, %v", p, err)
	}
	wantRequests(t, f) // no network when signing in
	r.Expand(t.Context(), accounts)
	f.fault(func(http.ResponseWriter, *http.Request) bool { t.Error("asked while signing in"); return false })

	p, err := ask(key, task("build", &auth.Grant{Permissions: []string{auth.PermitPTY}}))
	if err != nil || auth.IdentityName(p) != "forge:alice-now" || len(p.Extensions) != 2 {
		t.Errorf("alice: %+v, %v", p, err)
	}
	if p, err = ask(other, task("build", &auth.Grant{})); err != nil || auth.IdentityName(p) != "forge:bob" {
		t.Errorf("bob: %+v, %v", p, err)
	}
	p.Extensions["x"] = "" // it is ours to change
	if p, _ := ask(other, task("build", &auth.Grant{})); len(p.Extensions) != 1+len(auth.DefaultPermissions().Extensions) {
		t.Errorf("bob again: %+v", p)
	}

	for name, refused := range map[string]struct {
		key  ssh.PublicKey
		task auth.Task
	}{
		"another key":    {newPublicKey(t), task("build", &auth.Grant{})},
		"no key":         {nil, task("build", &auth.Grant{})},
		"a certificate":  {&ssh.Certificate{Key: key}, task("build", &auth.Grant{})},
		"another task":   {key, task("other", &auth.Grant{})},
		"no grant":       {key, task("build", nil)},
		"an ended grant": {key, task("build", &auth.Grant{Until: f.clock.Now()})},
	} {
		p, err := ask(refused.key, refused.task)
		if !errors.Is(err, auth.ErrDenied) || p != nil {
			t.Errorf("%s: %v, %v", name, p, err)
			continue
		}
		testenv.CheckText(t, err)
	}

	a.Operator = true
	if p, err := ask(key, task("build", nil)); err != nil || len(p.Extensions) != 1+len(auth.DefaultPermissions().Extensions) {
		t.Errorf("an operator's account: %+v, %v", p, err)
	}
	f.clock.Advance(time.Hour)
	if p, err := ask(key, task("build", nil)); !errors.Is(err, auth.ErrDenied) {
		t.Errorf("an hour later: %v, %v", p, err)
	}
}

// TestAuthorizerWaits where it is told to, for what is not known.
func TestAuthorizerWaits(t *testing.T) {
	f := newFake(t, GitHub)
	key := newPublicKey(t)
	f.set(1, person{login: "alice", keys: line(key)})
	a := &Authorizer{
		Resolver: f.resolver(t, nil),
		Accounts: func(auth.Task) []Account { return []Account{account(t, "forge:alice")} },
		Wait:     time.Minute,
	}
	for range 2 {
		if _, err := a.Authorize(t.Context(), auth.Identity{Key: key}, auth.Task{Grant: &auth.Grant{}}); err != nil {
			t.Fatal(err)
		}
	}
	wantRequests(t, f, "/alice.keys")

	f.fault(func(_ http.ResponseWriter, q *http.Request) bool { <-q.Context().Done(); return true })
	a.Resolver, a.Wait = f.resolver(t, nil), 10*time.Millisecond
	if _, err := a.Authorize(t.Context(), auth.Identity{Key: key}, auth.Task{Grant: &auth.Grant{}}); !errors.Is(err, auth.ErrDenied) {
		t.Errorf("a forge that does not answer: %v", err)
	}
}
