package main

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
)

// Every limit of the gateway can be configured, and none is lost on the way.
func TestLimitsAreComplete(t *testing.T) {
	theirs := reflect.TypeFor[gateway.Limits]()
	for i := range theirs.NumField() {
		if _, ok := reflect.TypeFor[Limits]().FieldByName(theirs.Field(i).Name); !ok {
			t.Errorf("gateway.Limits has %s, and the configuration has not", theirs.Field(i).Name)
		}
	}
	var l Limits
	v := reflect.ValueOf(&l).Elem()
	for i := range v.NumField() {
		v.Field(i).SetInt(int64(i + 1))
	}
	g := reflect.ValueOf(l.forGateway())
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if got := g.FieldByName(name); !got.IsValid() || got.Int() != int64(i+1) {
			t.Errorf("%s does not arrive", name)
		}
	}
	if (Limits{}).forGateway().SessionTime >= 0 {
		t.Error("no limit on the session time becomes the default one")
	}
}

type authorizerFunc func() (*ssh.Permissions, error)

func (f authorizerFunc) Authorize(context.Context, auth.Identity, auth.Task) (*ssh.Permissions, error) {
	return f()
}

func TestNarrowed(t *testing.T) {
	full := authorizerFunc(func() (*ssh.Permissions, error) {
		p := auth.FullPermissions()
		p.Extensions[auth.ExtIdentity] = "alice"
		p.Extensions[noTouchRequired] = ""
		p.CriticalOptions = map[string]string{auth.ForceCommand: "true"}
		return p, nil
	})
	p, err := narrowed{full, []string{auth.PermitPTY, auth.PermitExec}}.Authorize(t.Context(), auth.Identity{}, auth.Task{})
	if err != nil {
		t.Fatal(err)
	}
	var permits []string
	for name := range p.Extensions {
		if strings.HasPrefix(name, "permit-") {
			permits = append(permits, name)
		}
	}
	slices.Sort(permits)
	if want := []string{auth.PermitExec, auth.PermitPTY}; !slices.Equal(permits, want) {
		t.Errorf("permits %v, want %v", permits, want)
	}
	if _, ok := p.Extensions[noTouchRequired]; !ok {
		t.Error("an option of the key was lost")
	}
	if auth.IdentityName(p) != "alice" || p.CriticalOptions[auth.ForceCommand] != "true" {
		t.Errorf("identity or forced command was lost: %+v", p)
	}

	refused := authorizerFunc(func() (*ssh.Permissions, error) { return nil, auth.ErrDenied })
	if p, err := (narrowed{refused, []string{auth.PermitPTY}}).Authorize(t.Context(), auth.Identity{}, auth.Task{}); p != nil || !errors.Is(err, auth.ErrDenied) {
		t.Errorf("a refusal became %v, %v", p, err)
	}
}

// An empty list permits nothing, as opposed to no list.
func TestNoPermissions(t *testing.T) {
	c, r := loadText(t, "domain: a.example.com\nguests: {permissions: []}\n")
	if text := mistakesIn(r); text != "" || len(c.Guests.Permissions) != 0 {
		t.Errorf("%v, %s", c.Guests.Permissions, text)
	}
	c, _ = loadText(t, "domain: a.example.com\n")
	if !slices.Equal(c.Guests.Permissions, shortPermissions()) || len(c.Guests.Permissions) < 5 {
		t.Errorf("by default %v", c.Guests.Permissions)
	}
}

func TestCertificateIsChecked(t *testing.T) {
	leaf := certificateFor(t, "a.example.com").Leaf
	for _, test := range []struct {
		domain string
		now    time.Time
		want   string
	}{
		{"a.example.com", time.Now(), ""},
		{"", time.Now(), ""},
		{"b.example.com", time.Now(), "it is not for b.example.com"},
		{"a.example.com", time.Now().Add(2 * time.Hour), "it expired on"},
	} {
		err := checkLeaf(leaf, test.domain, test.now)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.domain, err, test.want)
		}
	}
	if checkLeaf(nil, "", time.Now()) == nil {
		t.Error("no certificate passed for one")
	}
}

// A manager renews for ever and cannot be stopped: a reload must not add one.
func TestReloadKeepsTheManager(t *testing.T) {
	var s certificates
	c, r := loadText(t, "domain: a.example.com\nstate_dir: state\n")
	s.source(c, r)
	s.source(c, r)
	if len(s.managers) != 1 {
		t.Errorf("%d managers for one domain", len(s.managers))
	}
	c.Domain = "b.example.com"
	s.source(c, r)
	if len(s.managers) != 2 {
		t.Errorf("%d managers for two domains", len(s.managers))
	}
}
