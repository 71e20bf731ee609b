package auth

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func authorizeByGrant(t testing.TB, g *Grant, id Identity, now time.Time) (*ssh.Permissions, error) {
	t.Helper()
	return GrantKeys{Now: at(now)}.Authorize(t.Context(), id, Task{ID: someTask, Grant: g})
}

func TestGrantKeys(t *testing.T) {
	alice, bob, stranger := newSigner(t).PublicKey(), newSigner(t).PublicKey(), newSigner(t).PublicKey()
	g := &Grant{
		AuthorizedKeys: []string{line(alice, "alice"), `no-pty,from="10.0.0.0/8" ` + line(bob, "bob")},
		Permissions:    []string{PermitPTY, PermitExec},
		Until:          noon.Add(time.Hour),
	}
	for _, c := range []struct {
		what string
		g    *Grant
		key  ssh.PublicKey
		addr string
		now  time.Time
		want map[string]string // nil: refused
	}{
		{"alice", g, alice, "192.0.2.1", noon, map[string]string{PermitPTY: "", PermitExec: "", ExtIdentity: "alice"}},
		{"bob from where he may", g, bob, "10.1.2.3", noon, map[string]string{PermitExec: "", ExtIdentity: "bob"}},
		{"bob from elsewhere", g, bob, "192.0.2.1", noon, nil},
		{"a stranger", g, stranger, "10.1.2.3", noon, nil},
		{"no key", g, nil, "10.1.2.3", noon, nil},
		{"just before the end", g, alice, "192.0.2.1", noon.Add(time.Hour - 1), map[string]string{PermitPTY: "", PermitExec: "", ExtIdentity: "alice"}},
		{"at the end", g, alice, "192.0.2.1", noon.Add(time.Hour), nil},
		{"no grant", nil, alice, "192.0.2.1", noon, nil},
		{"an empty grant", &Grant{}, alice, "192.0.2.1", noon, nil},
		{"a grant of nothing", &Grant{AuthorizedKeys: g.AuthorizedKeys, Permissions: []string{}}, alice, "192.0.2.1", noon, map[string]string{ExtIdentity: "alice"}},
		{"a line that cannot be read", &Grant{AuthorizedKeys: []string{"frobnicate " + line(alice, "alice")}}, alice, "192.0.2.1", noon, nil},
		{"a permission that does not exist", &Grant{AuthorizedKeys: g.AuthorizedKeys, Permissions: []string{"permit-root", ExtIdentity}}, alice, "192.0.2.1", noon, map[string]string{ExtIdentity: "alice"}},
		{"a later line", &Grant{AuthorizedKeys: []string{`from="10.0.0.1" ` + line(alice, "a"), line(alice, "b")}, Permissions: []string{}}, alice, "192.0.2.1", noon, map[string]string{ExtIdentity: "b"}},
	} {
		p, err := authorizeByGrant(t, c.g, Identity{Key: c.key, Remote: from(c.addr)}, c.now)
		if c.want == nil {
			if !errors.Is(err, ErrDenied) || p != nil {
				t.Errorf("%s: %+v, %v, want ErrDenied", c.what, p, err)
			}
			continue
		}
		if err != nil || !maps.Equal(p.Extensions, c.want) {
			t.Errorf("%s: %+v, %v, want %v", c.what, p, err, c.want)
		}
	}
}

func TestGrantWithoutAListPermitsTheDefault(t *testing.T) {
	key := newSigner(t).PublicKey()
	p, err := authorizeByGrant(t, &Grant{AuthorizedKeys: []string{line(key, "alice")}}, Identity{Key: key}, noon)
	if err != nil {
		t.Fatal(err)
	}
	delete(p.Extensions, ExtIdentity)
	if !maps.Equal(p.Extensions, DefaultPermissions().Extensions) {
		t.Errorf("%v", p.Extensions)
	}
}

// The options of a key cannot give what the grant as a whole does not.
func TestGrantBoundsItsKeys(t *testing.T) {
	key := newSigner(t).PublicKey()
	g := &Grant{
		AuthorizedKeys: []string{`restrict,pty,port-forwarding,command="make shell" ` + line(key, "alice")},
		Permissions:    []string{PermitPortForwarding},
	}
	p, err := authorizeByGrant(t, g, Identity{Key: key}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(p.Extensions, map[string]string{PermitPortForwarding: "", ExtIdentity: "alice"}) {
		t.Errorf("%v", p.Extensions)
	}
	for _, request := range []string{"exec", "subsystem"} {
		if err := AllowRequest(p, Guest, "session", request, text("sftp")); !errors.Is(err, ErrDenied) {
			t.Errorf("the forced command runs by %s: %v", request, err)
		}
	}
}

func TestGrantWaivesTheTouchOfAKey(t *testing.T) {
	key := securityKey(t, ssh.KeyAlgoSKED25519)
	for options, want := range map[string]bool{"no-touch-required ": true, "": false} {
		p, err := authorizeByGrant(t, &Grant{AuthorizedKeys: []string{options + line(key, "alice")}, Permissions: []string{}}, Identity{Key: key}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.Extensions["no-touch-required"]; ok != want {
			t.Errorf("%q: waived is %v", options, ok)
		}
	}
}

func TestGrantInJSON(t *testing.T) {
	key := line(newSigner(t).PublicKey(), "alice <a@example.com>")
	for want, g := range map[string]Grant{
		`{"authorized_keys":[]}`: {},
		`{"authorized_keys":["` + key + `"],"permissions":["permit-pty"],"until":1772370000}`: {AuthorizedKeys: []string{key}, Permissions: []string{PermitPTY}, Until: noon.Add(time.Hour)},
		`{"authorized_keys":[],"permissions":[]}`:                                             {Permissions: []string{}},
	} {
		data, err := marshalJSON(g)
		if err != nil || string(data) != want {
			t.Errorf("%s, %v, want %s", data, err, want)
		}
		var again Grant
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatal(err)
		}
		if again.AuthorizedKeys == nil || len(again.AuthorizedKeys) != len(g.AuthorizedKeys) || !reflect.DeepEqual(again.Permissions, g.Permissions) || !again.Until.Equal(g.Until) {
			t.Errorf("%s became %+v", data, again)
		}
	}
	for data, want := range map[string]string{
		`{"permit_copy":["a:1"]}`:            "permit_copy",
		`{"Permissions":[]}`:                 "Permissions",
		`{"permissions":[],"permissions":1}`: "duplicate",
		`{"permissions":"permit-pty"}`:       "permissions",
		`{"authorized_keys":{}}`:             "authorized_keys",
		`{"until":"2026-03-01T12:00:00Z"}`:   "until",
		`{"until":1e17}`:                     "until",
		`[]`:                                 "grant",
	} {
		g := Grant{AuthorizedKeys: []string{"x"}}
		if err := json.Unmarshal([]byte(data), &g); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", data, err, want)
		}
		if len(g.AuthorizedKeys) != 1 {
			t.Errorf("%s changed the grant", data)
		}
	}
}

func TestGrantPublicKeys(t *testing.T) {
	a, b := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	keys, err := (&Grant{AuthorizedKeys: []string{line(a, ""), `from="10.0.0.1" ` + line(b, "")}}).PublicKeys()
	if err != nil || len(keys) != 2 || ssh.FingerprintSHA256(keys[0]) != ssh.FingerprintSHA256(a) || ssh.FingerprintSHA256(keys[1]) != ssh.FingerprintSHA256(b) {
		t.Errorf("%v, %v", keys, err)
	}
	if got := (*Grant)(nil).Permitted(); len(got.Extensions) > 0 {
		t.Errorf("a nil grant permits %v", got.Extensions)
	}
}
