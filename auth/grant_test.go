package auth

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
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
		`{"authorized_keys":[],"permit_listen":[],"permit_open":["db:1"]}`:                    {PermitOpen: []string{"db:1"}, PermitListen: []string{}},
		`{"accounts":["github:alice#583231"],"authorized_keys":[]}`:                           {Accounts: []string{"github:alice#583231"}},
	} {
		data, err := marshalJSON(g)
		if err != nil || string(data) != want {
			t.Errorf("%s, %v, want %s", data, err, want)
		}
		var again Grant
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatal(err)
		}
		if again.AuthorizedKeys == nil || len(again.AuthorizedKeys) != len(g.AuthorizedKeys) || !reflect.DeepEqual(again.Permissions, g.Permissions) ||
			!reflect.DeepEqual(again.PermitOpen, g.PermitOpen) || !reflect.DeepEqual(again.PermitListen, g.PermitListen) || !again.Until.Equal(g.Until) {
			t.Errorf("%s became %+v", data, again)
		}
	}
	for data, want := range map[string]string{
		`{"permit_copy":["a:1"]}`:            "permit_copy",
		`{"Permissions":[]}`:                 "Permissions",
		`{"permissions":[],"permissions":1}`: "duplicate",
		`{"permissions":"permit-pty"}`:       "permissions",
		`{"authorized_keys":{}}`:             "authorized_keys",
		`{"permit_open":"a:1"}`:              "permit_open",
		`{"permit_listen":[1]}`:              "permit_listen",
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

func TestGrantNamesForwardings(t *testing.T) {
	key := newSigner(t).PublicKey()
	for _, c := range []struct {
		open, listen []string
		options      string
		want         string // which of the four below are permitted
	}{
		{nil, nil, "", "open db, open lo, listen 80, listen 81"},
		{[]string{}, nil, "", "listen 80, listen 81"},
		{nil, []string{}, "", "open db, open lo"},
		{[]string{"db:5432"}, []string{"80"}, "", "open db, listen 80"},
		{[]string{"*:5432"}, []string{"LOCALHOST:*"}, "", "open db, open lo, listen 80, listen 81"},
		{[]string{"db:5432"}, nil, `permitopen="localhost:*" `, "listen 80, listen 81"},
		{[]string{"db:5432", "localhost:5432"}, nil, `permitopen="localhost:*",permitlisten="81" `, "open lo, listen 81"},
		{nil, nil, "no-port-forwarding ", ""},
	} {
		g := &Grant{AuthorizedKeys: []string{c.options + line(key, "alice")}, PermitOpen: c.open, PermitListen: c.listen}
		if err := g.Check(); err != nil {
			t.Errorf("%v: %v", c, err)
		}
		p, err := authorizeByGrant(t, g, Identity{Key: key}, noon)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for what, err := range map[string]error{
			"open db":   AllowChannel(p, Guest, "direct-tcpip", directPayload("db", 5432)),
			"open lo":   AllowChannel(p, Guest, "direct-tcpip", directPayload("localhost", 5432)),
			"listen 80": AllowGlobal(p, Guest, "tcpip-forward", forwardPayload("localhost", 80)),
			"listen 81": AllowGlobal(p, Guest, "tcpip-forward", forwardPayload("localhost", 81)),
		} {
			if err == nil {
				got = append(got, what)
			}
		}
		slices.Sort(got)
		want := strings.Split(c.want, ", ")
		slices.Sort(want)
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("%q, %q, %q: permitted %v, want %v", c.open, c.listen, c.options, got, want)
		}
		if sockets := AllowChannel(p, Guest, "direct-streamlocal@openssh.com", text("/x")) == nil; sockets != (c.open == nil && c.options == "") {
			t.Errorf("%q: sockets are open: %v", c.open, sockets)
		}
	}
}

func TestGrantIsChecked(t *testing.T) {
	long := make([]string, 400)
	for i := range long {
		long[i] = "db.example.com:5432"
	}
	for want, g := range map[string]Grant{
		"permit_open: \"db\" is not host:port":    {PermitOpen: []string{"a:1", "db"}},
		"permit_open: \"a,b:1\" is not host:port": {PermitOpen: []string{"a,b:1"}},
		"permit_open: \"a;b:1\" is not host:port": {PermitOpen: []string{"a;b:1"}},
		"permit_open: \"80\" is not host:port":    {PermitOpen: []string{"80"}},
		"permit_listen: \"a:b\": the port":        {PermitListen: []string{"a:b"}},
		"permit_listen: \"\": the port must be":   {PermitListen: []string{""}},
		"permit_listen: 7999 bytes long":          {PermitListen: long},
		"permission \"permit-root\"":              {Permissions: []string{"permit-root"}},
	} {
		if err := g.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := MintToken(newKey(t), Token{Task: someTask, Expires: time.Now().Add(time.Hour), Grant: g}); err == nil {
			t.Errorf("a token with it is minted: %s", want)
		}
		if p := g.Permitted(); len(p.Extensions) > 0 && g.Permissions == nil {
			t.Errorf("%s: permits %v", want, p.Extensions)
		}
	}
}

// gateway-ports is given by name alone.
func TestGatewayPorts(t *testing.T) {
	key := newSigner(t).PublicKey()
	for _, c := range []struct {
		permissions []string
		options     string
		want        bool
	}{
		{nil, "", false},
		{nil, "gateway-ports ", false}, // the grant bounds its keys
		{[]string{PermitPortForwarding, PermitGatewayPorts}, "", true},
		{[]string{PermitPortForwarding, PermitGatewayPorts}, "restrict,port-forwarding ", false},
		{[]string{PermitPortForwarding, PermitGatewayPorts}, "no-gateway-ports ", false},
	} {
		p, err := authorizeByGrant(t, &Grant{AuthorizedKeys: []string{c.options + line(key, "")}, Permissions: c.permissions}, Identity{Key: key}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := p.Extensions[PermitGatewayPorts]; got != c.want {
			t.Errorf("%v, %q: %v", c.permissions, c.options, got)
		}
	}
}

func FuzzGrantJSON(f *testing.F) {
	key := line(newSigner(f).PublicKey(), "alice")
	for _, g := range []Grant{{}, {AuthorizedKeys: []string{"cert-authority,principals=\"a\" " + key}, Permissions: []string{PermitPTY}, PermitOpen: []string{"a:1"}, PermitListen: []string{}, Until: noon}} {
		data, err := marshalJSON(g)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"permit_open":null,"until":1e3,"permissions":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var g Grant
		if err := g.UnmarshalJSON(data); err != nil {
			testenv.CheckText(t, err)
			return
		}
		written, err := marshalJSON(g)
		if err != nil {
			t.Fatal(err)
		}
		var again Grant
		if err := again.UnmarshalJSON(written); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if twice, _ := marshalJSON(again); string(twice) != string(written) {
			t.Fatalf("%s becomes %s", written, twice)
		}
		if err := g.Check(); err != nil {
			testenv.CheckText(t, err)
		} else if usable(g.Permitted()) != nil {
			t.Fatalf("%s permits nothing, and passes the check", written)
		}
	})
}

func TestGrantAccounts(t *testing.T) {
	for _, good := range []string{"github:alice", "GitHub:Alice-B", "git.example.com:a_b.c", "github:alice#583231", "gitlab:#1", "github:_x"} {
		if err := (&Grant{Accounts: []string{good}}).Check(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "alice", "github:", ":alice", "github:alice#", "github:alice#0", "github:alice#01", "github:alice#x", "github:#", "github:al/ice",
		"github:alice\n", "github:alice bob", "github:-alice", "-x:alice", "git hub:alice", "github:alice?x", "github:\u00e4", "github:" + strings.Repeat("a", 256),
	} {
		if err := (&Grant{Accounts: []string{"github:ok", bad}}).Check(); err == nil {
			t.Errorf("%q is taken for an account", bad)
		}
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = "github:alice"
	}
	if err := (&Grant{Accounts: many}).Check(); err == nil {
		t.Error("there is no limit")
	}
}
