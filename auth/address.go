package auth

import (
	"fmt"
	"net/netip"
	"strings"
)

// plainAddr strips what would keep equal addresses from comparing equal: the
// form of IPv4 inside IPv6, and a zone.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// parseCIDR reads an address, which stands for itself, or a CIDR block. Like
// sshd it refuses a block with bits set beyond its mask: such a line is a
// mistake, and guessing what it meant could admit too many.
func parseCIDR(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an IP address", s)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR block", s)
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("write the CIDR block %q as IPv4", s)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set beyond its mask: did you mean %v?", s, prefix.Masked())
	}
	return prefix, nil
}

// An addressPattern is one entry of a from= list.
type addressPattern struct {
	negated  bool
	prefix   netip.Prefix // valid for addresses and CIDR blocks
	wildcard string       // otherwise: * and ? matched against the address as text
}

// An addressList is the list of a from= option: sshd's mixture of CIDR blocks
// and wildcards, where one negated match refuses whatever else matches.
type addressList []addressPattern

// parseAddressList reads a from= list. A host name is an error: names are not
// resolved, so it would let nobody in, or negated keep nobody out.
func parseAddressList(s string) (list addressList, err error) {
	for entry := range strings.SplitSeq(strings.ToLower(s), ",") {
		body, negated := strings.CutPrefix(entry, "!")
		prefix, err := parseCIDR(body)
		switch {
		case err == nil:
			list = append(list, addressPattern{negated: negated, prefix: prefix})
		case body == "" || strings.ContainsAny(body, "/ \t\"!"):
			return nil, fmt.Errorf("from=: %w", err)
		case isAddressWildcard(body):
			list = append(list, addressPattern{negated: negated, wildcard: body})
		case negated:
			return nil, fmt.Errorf("from=: host names are not resolved, so %q would keep nobody out: use addresses", entry)
		default:
			return nil, fmt.Errorf("from=: host names are not resolved, so %q would let nobody in: use addresses, as in 192.0.2.0/24 or 10.1.*", entry)
		}
	}
	return list, nil
}

// isAddressWildcard tells a pattern that some address can match from a host
// name.
func isAddressWildcard(s string) bool {
	if !strings.ContainsAny(s, "*?") {
		return false
	}
	if strings.Contains(s, ":") {
		return strings.Trim(s, "0123456789abcdef:.*?") == ""
	}
	// "*" and "?" may stand for a colon, so a pattern such as "fe80*" is one
	// for IPv6.
	return strings.Trim(s, "0123456789.*?") == "" || strings.Trim(s, "0123456789abcdef*?") == ""
}

func (l addressList) permits(remote netip.Addr) bool {
	if !remote.IsValid() {
		return false
	}
	remote = plainAddr(remote)
	permitted := false
	for _, p := range l {
		switch {
		case !p.matches(remote):
		case p.negated:
			return false
		default:
			permitted = true
		}
	}
	return permitted
}

func (p addressPattern) matches(remote netip.Addr) bool {
	if p.prefix.IsValid() {
		return p.prefix.Contains(remote)
	}
	return matchWildcard(p.wildcard, remote.String())
}

// matchWildcard is ssh's match_pattern: * for any number of characters, ? for
// exactly one. It takes at most len(pattern)*len(s) steps, whatever the
// pattern.
func matchWildcard(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
