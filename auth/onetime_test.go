package auth

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestOneTimePasswordIsTyped(t *testing.T) {
	password := NewOneTimePassword()
	if !regexp.MustCompile(`^([a-z2-7]{6}-){4}[a-z2-7]{2}$`).MatchString(password) || password == NewOneTimePassword() {
		t.Errorf("%q", password)
	}
	want := HashOneTimePassword(password)
	for _, typed := range []string{strings.ToUpper(password), strings.ReplaceAll(password, "-", ""), " " + strings.ReplaceAll(password, "-", " ") + "\t"} {
		if HashOneTimePassword(typed) != want {
			t.Errorf("typed as %q it is another", typed)
		}
	}
	for _, typed := range []string{"", password[1:], password + "a", strings.Repeat("a", 1<<20)} {
		if HashOneTimePassword(typed) == want {
			t.Errorf("%.60q is taken for it", typed)
		}
	}
}

func TestOneTimePasswords(t *testing.T) {
	now := time.Now()
	given := Identity{Method: OneTimePassword}
	for name, test := range map[string]struct {
		id    Identity
		grant *Grant
		ok    bool
	}{
		"granted":       {given, &Grant{OneTimePassword: true, Permissions: []string{PermitPTY}}, true},
		"not wanted":    {given, &Grant{}, false},
		"no grant":      {given, nil, false},
		"over":          {given, &Grant{OneTimePassword: true, Until: now}, false},
		"another way":   {Identity{Method: "publickey"}, &Grant{OneTimePassword: true}, false},
		"no method":     {Identity{}, &Grant{OneTimePassword: true}, false},
		"not until yet": {given, &Grant{OneTimePassword: true, Until: now.Add(time.Second), Permissions: []string{PermitPTY}}, true},
	} {
		p, err := OneTimePasswords{Now: func() time.Time { return now }}.Authorize(t.Context(), test.id, Task{ID: "task-1", Grant: test.grant})
		if (err == nil) != test.ok || err != nil && (p != nil || !errors.Is(err, ErrDenied)) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if test.ok && (IdentityName(p) != OneTimePassword || len(p.Extensions) != 2) {
			t.Errorf("%s: %v", name, p)
		}
	}
}

func TestGrantOfAOneTimePassword(t *testing.T) {
	var g Grant
	if err := g.UnmarshalJSON([]byte(`{"authorized_keys": [], "one_time_password": true}`)); err != nil || !g.OneTimePassword {
		t.Errorf("%+v, %v", g, err)
	}
	if data, err := g.MarshalJSON(); err != nil || !strings.Contains(string(data), `"one_time_password":true`) {
		t.Errorf("%s, %v", data, err)
	}
	if data, _ := (Grant{}).MarshalJSON(); strings.Contains(string(data), "one_time") {
		t.Errorf("%s", data)
	}
	if err := new(Grant).UnmarshalJSON([]byte(`{"one_time_password": "yes"}`)); err == nil {
		t.Error("a word is taken for true")
	}
}
