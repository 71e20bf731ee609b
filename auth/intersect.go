package auth

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Intersect returns a new value that permits what both a and b permit: an
// extension must be in both, and the critical options of both hold. Where they
// cannot hold together (two forced commands, disjoint source addresses, two
// identities) and where one is nil or has an option that is not understood, the
// result permits nothing. The identity is that of the one that has one.
func Intersect(a, b *ssh.Permissions) *ssh.Permissions {
	p := noPermissions()
	if usable(a) != nil || usable(b) != nil {
		return p
	}
	for name := range a.Extensions {
		if _, both := b.Extensions[name]; both {
			p.Extensions[name] = ""
		}
	}
	identity, ok := intersectIdentity(a, b)
	if !ok {
		return noPermissions()
	}
	if identity != "" {
		p.Extensions[ExtIdentity] = identity
	}
	for _, name := range criticalOptionNames {
		value, present, ok := intersectOption(name, a, b)
		if !ok {
			return noPermissions()
		}
		if present {
			p.CriticalOptions[name] = value
		}
	}
	return p
}

func intersectIdentity(a, b *ssh.Permissions) (name string, ok bool) {
	x, y := IdentityName(a), IdentityName(b)
	switch {
	case x == "":
		return y, true
	case y == "" || x == y:
		return x, true
	}
	return "", false
}

// intersectOption returns the value that holds both restrictions, whether there
// is any, and whether that is possible.
func intersectOption(name string, a, b *ssh.Permissions) (value string, present, ok bool) {
	x, inA := a.CriticalOptions[name]
	y, inB := b.CriticalOptions[name]
	switch {
	case !inA && !inB:
		return "", false, true
	case !inB:
		return x, true, true
	case !inA:
		return y, true, true
	case x == y:
		return x, true, true
	}
	switch name {
	case SourceAddress:
		value, ok = intersectAddresses(x, y)
	case PermitOpen, PermitListen:
		value, ok = bothLists(x, y), true
	}
	return value, true, ok // two forced commands: neither may run
}

// intersectAddresses returns the addresses in both lists. Two CIDR blocks are
// nested or apart, so the narrower of each pair that meets is all there is.
func intersectAddresses(x, y string) (string, bool) {
	as, err := parseSourceAddress(x)
	if err != nil {
		return "", false
	}
	bs, err := parseSourceAddress(y)
	if err != nil {
		return "", false
	}
	var both []string
	for _, a := range as {
		for _, b := range bs {
			if !a.Overlaps(b) {
				continue
			}
			narrower := a
			if b.Bits() > a.Bits() {
				narrower = b
			}
			if s := narrower.String(); !slices.Contains(both, s) {
				both = append(both, s)
			}
		}
	}
	return strings.Join(both, ","), len(both) > 0
}

// parseSourceAddress reads the value of a source-address option, as sshd does:
// addresses and CIDR blocks, no wildcards, no negation, no host names.
func parseSourceAddress(value string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for entry := range strings.SplitSeq(value, ",") {
		prefix, err := parseCIDR(entry)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

func sourceAddressPermits(value string, remote netip.Addr) (bool, error) {
	prefixes, err := parseSourceAddress(value)
	if err != nil {
		return false, err
	}
	remote = plainAddr(remote)
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(remote) }), nil
}
