package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
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
	numbers := v.NumField() - 1 // and Penalties, see below
	for i := range numbers {
		v.Field(i).SetInt(int64(i + 1))
	}
	g := reflect.ValueOf(l.forGateway())
	for i := range numbers {
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
	most := (&auth.Grant{Permissions: []string{auth.PermitPTY, auth.PermitExec}, PermitOpen: []string{"db:5432"}}).Permitted()
	p, err := narrowed{full, most}.Authorize(t.Context(), auth.Identity{}, auth.Task{})
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
	if p.CriticalOptions[auth.PermitOpen] != "db:5432" {
		t.Errorf("targets: %v", p.CriticalOptions)
	}
	if auth.IdentityName(p) != "alice" || p.CriticalOptions[auth.ForceCommand] != "true" {
		t.Errorf("identity or forced command was lost: %+v", p)
	}

	refused := authorizerFunc(func() (*ssh.Permissions, error) { return nil, auth.ErrDenied })
	if p, err := (narrowed{refused, most}).Authorize(t.Context(), auth.Identity{}, auth.Task{}); p != nil || !errors.Is(err, auth.ErrDenied) {
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

func TestMostPermissions(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                                   "nil",
		"{permissions: []}":                    "0 map[]",
		"{permissions: [pty, exec]}":           "2 map[]",
		"{permit_open: []}":                    "8 map[permitopen@stagedoor:]",
		"{permit_open: ['db:1', '*:22']}":      "8 map[permitopen@stagedoor:db:1,*:22]",
		"{permit_listen: ['8080', 'LO:*']}":    "8 map[permitlisten@stagedoor:*:8080,lo:*]",
		"{permit_open: ~, permit_listen: [1]}": "",
	} {
		c, r := loadText(t, "domain: a.example.com\nguests: "+text+"\n")
		if want == "" {
			if r.ok() {
				t.Errorf("%s is accepted", text)
			}
			continue
		}
		got := "nil"
		if p := c.mostPermissions(); p != nil {
			got = fmt.Sprintf("%d %v", len(p.Extensions), p.CriticalOptions)
		}
		if !r.ok() || got != want {
			t.Errorf("%s: %s, want %s; %s", text, got, want, mistakesIn(r))
		}
	}
	for _, args := range [][]string{{"--guests-permit-open", "nowhere"}, {"--guests-permit-listen", "a:b"}, {"--guests-permit-open", strings.Repeat("a.example.com:1,", 300)}} {
		_, r := loadText(t, "domain: a.example.com\n", args...)
		if got := mistakesIn(r); !strings.Contains(got, "guests.permit_") {
			t.Errorf("%.60s: %s", args, got)
		}
	}
	if c, _ := loadText(t, "domain: a.example.com\n", "--guests-permit-open", ""); c.Guests.PermitOpen == nil {
		t.Error("an empty flag is not an empty list")
	}
}

// What the file says of keys to come and of the most that guests may do arrives
// at the gateway.
func TestSettingsArrive(t *testing.T) {
	dir := t.TempDir()
	now, next := testenv.NewKey(t, dir, "now"), testenv.NewKey(t, dir, "next")
	load := func(nextKeys, guests string) (gateway.Settings, string) {
		c, r := loadText(t, "domain: a.example.com\nstate_dir: "+dir+"\nssh: {host_keys: ["+now.File+"], next_host_keys: ["+nextKeys+"]}\nguests: "+guests+"\n")
		var asked partners
		defer asked.close()
		return c.settings(r, &certificates{}, &asked, false), mistakesIn(r)
	}
	s, mistakes := load(next.File, "{permissions: [pty], permit_open: []}")
	if mistakes != "" || len(s.HostKeys) != 1 || len(s.NextHostKeys) != 1 || s.Policy == nil || len(s.Policy.Extensions) != 1 || len(s.Policy.CriticalOptions) != 1 {
		t.Errorf("%+v, %s", s, mistakes)
	}
	if s, mistakes := load("", "{}"); mistakes != "" || s.NextHostKeys != nil || s.Policy != nil {
		t.Errorf("by default %v, %v, %s", s.NextHostKeys, s.Policy, mistakes)
	}
	for files, want := range map[string]string{now.File: "is in use already", filepath.Join(dir, "missing"): "no such file", next.File + ", " + now.File: "a second key of type"} {
		if _, mistakes := load(files, "{}"); !strings.Contains(mistakes, "ssh.next_host_keys: ") || !strings.Contains(mistakes, want) {
			t.Errorf("%s: %s, want %q", files, mistakes, want)
		}
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

// What was wrong at the start, and went right with somebody's connection, is
// told too.
func TestCertificateComesLate(t *testing.T) {
	m := &acmeManager{ready: make(chan struct{}), get: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("connection refused")
	}}
	log := &logBuffer{ended: make(chan struct{})}
	go func() {
		defer close(log.ended)
		m.fetchCertificate(t.Context(), "a.example.com", slog.New(slog.NewTextHandler(log, nil)))
	}()
	log.await(t, "connection refused", 1)
	if strings.Contains(log.String(), "certificate ready") {
		t.Error("there is none yet")
	}
	close(m.ready)
	log.await(t, "certificate ready", 1)
	<-log.ended
}
