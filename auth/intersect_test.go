package auth

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Values that meet, nest, miss each other, and cannot be read.
var (
	someSources  = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.168.0.0/16,10.0.0.0/8", "2001:db8::/32", "", "not an address", "10.0.0.1/8"}
	someCommands = []string{"a", "b", ""}
	someForwards = []string{"localhost:80", "localhost:*", "*:80", "localhost:80,db:5432", "db:5432;*:*", ""}
	someNames    = []string{"alice", "bob"}
)

func randomPermissions(r *rand.Rand) *ssh.Permissions {
	if r.IntN(20) == 0 {
		return nil
	}
	p := noPermissions()
	for _, name := range append(permissionNames, noTouchRequired, "unknown@example.com") {
		if r.IntN(3) > 0 {
			p.Extensions[name] = ""
		}
	}
	if r.IntN(3) == 0 {
		p.Extensions[ExtIdentity] = someNames[r.IntN(len(someNames))]
	}
	for option, values := range map[string][]string{SourceAddress: someSources, ForceCommand: someCommands, PermitOpen: someForwards, PermitListen: someForwards, "unknown@example.com": {"x"}} {
		if r.IntN(4) == 0 {
			p.CriticalOptions[option] = values[r.IntN(len(values))]
		}
	}
	return p
}

// asked is everything that the tests ask of permissions: the table's cases and
// more addresses to forward to.
func asked() []tableCase {
	cases := tableCases()
	for _, host := range []string{"localhost", "db", "elsewhere"} {
		for _, port := range []uint32{0, 80, 5432} {
			cases = append(cases,
				channelCase("direct-tcpip", Guest, directPayload(host, port)),
				globalCase("tcpip-forward", guestOnly, forwardPayload(host, port)))
		}
	}
	return cases
}

var askedFrom = []string{"10.1.2.3", "10.1.9.9", "10.9.9.9", "192.168.1.1", "2001:db8::1", "::1", "203.0.113.7"}

func TestIntersectNeverWidens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	cases := asked()
	for range 1500 {
		a, b := randomPermissions(r), randomPermissions(r)
		checkNarrowing(t, cases, a, b)
		if t.Failed() {
			return
		}
	}
}

func checkNarrowing(t *testing.T, cases []tableCase, a, b *ssh.Permissions) {
	t.Helper()
	both := Intersect(a, b)
	for _, c := range cases {
		for _, from := range anySide {
			if c.name == "channel session" || len(c.anyOf) == 0 && c.payload == nil {
				continue // being signed in is enough for these
			}
			if c.ask(both, from, c.payload) == nil && (c.ask(a, from, c.payload) != nil || c.ask(b, from, c.payload) != nil) {
				t.Errorf("%s from the %v is allowed to %+v, the intersection of %+v and %+v", c.name, from, both, a, b)
			}
		}
	}
	if len(both.Extensions) > 0 && !onlyIdentity(both) {
		for _, from := range askedFrom {
			addr := netip.MustParseAddr(from)
			if comesFrom(both, addr) && !(comesFrom(a, addr) && comesFrom(b, addr)) {
				t.Errorf("%s may sign in with %+v, the intersection of %+v and %+v", from, both, a, b)
			}
		}
	}
	if command, forced := ForcedCommand(both); forced {
		for _, p := range []*ssh.Permissions{a, b} {
			if own, ok := ForcedCommand(p); ok && own != command {
				t.Errorf("%q is forced where %q was", command, own)
			}
		}
	}
}

func onlyIdentity(p *ssh.Permissions) bool {
	return len(p.Extensions) == 1 && p.Extensions[ExtIdentity] != ""
}

func comesFrom(p *ssh.Permissions, addr netip.Addr) bool {
	value, restricted := p.CriticalOptions[SourceAddress]
	if !restricted {
		return true
	}
	ok, err := sourceAddressPermits(value, addr)
	return ok && err == nil
}

// The other direction: what both permit stays permitted, as long as their
// restrictions can hold together.
func TestIntersectKeepsWhatBothPermit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 700 {
		a, b := randomPermissions(r), randomPermissions(r)
		if a == nil || b == nil {
			continue
		}
		for _, p := range []*ssh.Permissions{a, b} {
			delete(p.CriticalOptions, SourceAddress)
			delete(p.CriticalOptions, ForceCommand)
			delete(p.CriticalOptions, "unknown@example.com")
			delete(p.Extensions, ExtIdentity)
		}
		both := Intersect(a, b)
		for _, c := range asked() {
			for _, from := range anySide {
				if c.ask(a, from, c.payload) == nil && c.ask(b, from, c.payload) == nil && c.ask(both, from, c.payload) != nil && c.name != "request shell" {
					t.Fatalf("%s from the %v is refused to %+v, the intersection of %+v and %+v", c.name, from, both, a, b)
				}
			}
		}
	}
}

func TestIntersect(t *testing.T) {
	with := func(options map[string]string, extensions ...string) *ssh.Permissions {
		p := noPermissions()
		maps.Copy(p.CriticalOptions, options)
		for _, name := range extensions {
			p.Extensions[name] = ""
		}
		return p
	}
	named := func(name string) *ssh.Permissions {
		p := with(nil, PermitPTY)
		p.Extensions[ExtIdentity] = name
		return p
	}
	nothing := noPermissions()
	for _, c := range []struct {
		what       string
		a, b, want *ssh.Permissions
	}{
		{"nil", nil, FullPermissions(), nothing},
		{"both nil", nil, nil, nothing},
		{"extensions", with(nil, PermitPTY, PermitExec), with(nil, PermitExec, PermitSFTP), with(nil, PermitExec)},
		{"a forced command in one", with(map[string]string{ForceCommand: "x"}, PermitExec), with(nil, PermitExec), with(map[string]string{ForceCommand: "x"}, PermitExec)},
		{"the same forced command", with(map[string]string{ForceCommand: "x"}, PermitExec), with(map[string]string{ForceCommand: "x"}, PermitExec), with(map[string]string{ForceCommand: "x"}, PermitExec)},
		{"two forced commands", with(map[string]string{ForceCommand: "x"}, PermitExec), with(map[string]string{ForceCommand: "y"}, PermitExec), nothing},
		{"nested sources", with(map[string]string{SourceAddress: "10.0.0.0/8"}, PermitPTY), with(map[string]string{SourceAddress: "10.1.0.0/16,::1"}, PermitPTY), with(map[string]string{SourceAddress: "10.1.0.0/16"}, PermitPTY)},
		{"disjoint sources", with(map[string]string{SourceAddress: "10.0.0.0/8"}, PermitPTY), with(map[string]string{SourceAddress: "192.168.0.0/16"}, PermitPTY), nothing},
		{"unreadable sources", with(map[string]string{SourceAddress: "10.0.0.0/8"}, PermitPTY), with(map[string]string{SourceAddress: "!10.0.0.1"}, PermitPTY), nothing},
		{"unknown option", with(map[string]string{"new@openssh.com": ""}, PermitPTY), with(nil, PermitPTY), nothing},
		{"targets of both", with(map[string]string{PermitOpen: "a:1"}), with(map[string]string{PermitOpen: "b:2"}), with(map[string]string{PermitOpen: "a:1;b:2"})},
		{"targets again", with(map[string]string{PermitOpen: "a:1;b:2"}), with(map[string]string{PermitOpen: "b:2"}), with(map[string]string{PermitOpen: "a:1;b:2"})},
		{"a name in one", named("alice"), with(nil, PermitPTY), named("alice")},
		{"two names", named("alice"), named("bob"), nothing},
	} {
		for _, got := range []*ssh.Permissions{Intersect(c.a, c.b)} {
			if !maps.Equal(got.Extensions, c.want.Extensions) || !maps.Equal(got.CriticalOptions, c.want.CriticalOptions) {
				t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
			}
		}
	}
}

func TestIntersectReturnsANewValue(t *testing.T) {
	a, b := FullPermissions(), FullPermissions()
	p := Intersect(a, b)
	p.Extensions[ExtIdentity] = "mallory"
	p.CriticalOptions[ForceCommand] = "x"
	if IdentityName(a) != "" || IdentityName(b) != "" || len(a.CriticalOptions)+len(b.CriticalOptions) > 0 {
		t.Error("changing the result changed what it was made of")
	}
}

func FuzzIntersectSources(f *testing.F) {
	for _, x := range someSources {
		f.Add(x, "10.0.0.0/8", "10.1.2.3")
	}
	f.Fuzz(func(t *testing.T, x, y, from string) {
		addr, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		both, ok := intersectAddresses(x, y)
		inBoth := false
		if ok {
			if inBoth, err = sourceAddressPermits(both, addr); err != nil {
				t.Fatalf("%q and %q make %q: %v", x, y, both, err)
			}
		}
		inX, errX := sourceAddressPermits(x, addr)
		inY, errY := sourceAddressPermits(y, addr)
		if want := inX && inY && errX == nil && errY == nil; inBoth != want {
			t.Fatalf("%s in %q and %q: %v, in %q: %v", from, x, y, want, both, inBoth)
		}
	})
}
