package auth

import (
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestPolicyTravels(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		p := randomPermissions(r)
		data, err := MarshalPolicy(p)
		if p == nil {
			if data != nil || err != nil {
				t.Fatalf("no policy is %q, %v", data, err)
			}
			continue
		}
		if (narrowing(p) == nil) != (err == nil) {
			t.Fatalf("%+v: %v", p, err)
		}
		if err != nil {
			continue
		}
		again, err := ParsePolicy(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		for _, name := range permissionNames {
			_, want := p.Extensions[name]
			if _, got := again.Extensions[name]; got != want {
				t.Fatalf("%s: %s is %v", data, name, got)
			}
		}
		if !maps.Equal(again.CriticalOptions, p.CriticalOptions) {
			t.Fatalf("%s: %v, want %v", data, again.CriticalOptions, p.CriticalOptions)
		}
	}
	if p, err := ParsePolicy(nil); p != nil || err != nil {
		t.Errorf("no policy: %v, %v", p, err)
	}
}

// What an agent makes of a policy: less, and nothing else.
func TestPolicyNarrows(t *testing.T) {
	most := (&Grant{Permissions: []string{PermitExec, PermitSFTP, PermitPortForwarding}, PermitOpen: []string{"localhost:*"}}).Permitted()
	data, err := MarshalPolicy(most)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ParsePolicy(data)
	if err != nil {
		t.Fatal(err)
	}
	key := securityKey(t, ssh.KeyAlgoSKED25519)
	g := &Grant{AuthorizedKeys: []string{"no-touch-required " + line(key, "alice")}, Permissions: []string{PermitExec, PermitPTY, PermitPortForwarding}}
	granted, err := authorizeByGrant(t, g, Identity{Key: key}, noon)
	if err != nil {
		t.Fatal(err)
	}
	p := Intersect(granted, policy)
	want := map[string]string{PermitExec: "", PermitPortForwarding: "", ExtIdentity: "alice", noTouchRequired: ""}
	if !maps.Equal(p.Extensions, want) || !maps.Equal(p.CriticalOptions, map[string]string{PermitOpen: "localhost:*"}) {
		t.Errorf("%+v", p)
	}
	if AllowChannel(p, Guest, "direct-tcpip", directPayload("localhost", 80)) != nil || AllowChannel(p, Guest, "direct-tcpip", directPayload("db", 80)) == nil {
		t.Error("its targets are not the policy's")
	}
}

func TestPoliciesThatPermitNothing(t *testing.T) {
	for data, want := range map[string]string{
		"x":                              "",
		"null":                           "null",
		"[]":                             "",
		`"full"`:                         "",
		"{} {}":                          "",
		`{"until":1}`:                    "until",
		`{"Permissions":["permit-pty"]}`: "Permissions",
		`{"permissions":"permit-pty"}`:   "",
		`{"permissions":["permit-pty"],"permissions":["permit-pty"]}`:                       "duplicate",
		`{"permissions":["permit-pty"],"critical_options":{"new@example.com":""}}`:          "new@example.com",
		`{"permissions":["permit-pty"],"critical_options":{"force-command":""}}`:            "force-command",
		`{"permissions":["permit-pty"],"critical_options":{"force-command":"id"}}`:          "force-command",
		`{"permissions":["permit-pty"],"critical_options":[]}`:                              "",
		`{"permissions":["permit-pty"],"x":"` + strings.Repeat("x", maxPolicy) + `"}`:       "allowed",
		`{"permissions":["permit-pty"],"critical_options":{"permitopen@stagedoor":1}}`:      "",
		`{"permissions":["permit-pty"],"critical_options":{"\u001b[31mpermitopen":"a:1"}}`:  "",
		`{"permissions":["permit-pty"],"critical_options":{"verify-required":"","x":"\n"}}`: "",
	} {
		p, err := ParsePolicy([]byte(data))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error %v, want %q", data, err, want)
			continue
		}
		testenv.CheckText(t, err)
		if p == nil || len(Intersect(FullPermissions(), p).Extensions) > 0 {
			t.Errorf("%.80s permits %+v", data, p)
		}
	}
	for data, want := range map[string]map[string]string{
		"{}":                 {noTouchRequired: ""},
		`{"permissions":[]}`: {noTouchRequired: ""},
		`{"permissions":["permit-pty","permit-tomorrow@stagedoor","identity@stagedoor"]}`: {noTouchRequired: "", PermitPTY: ""},
	} {
		if p, err := ParsePolicy([]byte(data)); err != nil || !maps.Equal(p.Extensions, want) {
			t.Errorf("%s: %+v, %v", data, p, err)
		}
	}
}

func TestPolicyTooLong(t *testing.T) {
	p := FullPermissions()
	p.CriticalOptions[PermitOpen] = strings.Repeat("a:1,", maxPolicy/4)
	if _, err := MarshalPolicy(p); err == nil || !strings.Contains(err.Error(), "allowed") {
		t.Error(err)
	}
	p.CriticalOptions = map[string]string{"new": ""}
	if _, err := MarshalPolicy(p); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	restricted := restrictedPermissions()
	delete(restricted.CriticalOptions, ForceCommand)
	for _, p := range []*ssh.Permissions{FullPermissions(), restricted, noPermissions()} {
		data, err := MarshalPolicy(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"critical_options":{"force-command":"id"}}`))
	f.Add([]byte(`{"permissions":null,"critical_options":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if len(data) == 0 {
			return
		}
		if p == nil {
			t.Fatal("a policy became none")
		}
		if err != nil {
			testenv.CheckText(t, err)
			if len(p.Extensions)+len(p.CriticalOptions) > 0 {
				t.Fatalf("%+v beside %v", p, err)
			}
			return
		}
		if written, err := MarshalPolicy(p); err == nil {
			again, err := ParsePolicy(written)
			if err != nil || !maps.Equal(again.Extensions, p.Extensions) || !maps.Equal(again.CriticalOptions, p.CriticalOptions) {
				t.Fatalf("%s becomes %s: %v", data, written, err)
			}
		} else if !strings.Contains(err.Error(), "allowed") {
			t.Fatal(err)
		}
	})
}
