package auth

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The value of PermitOpen and PermitListen is one or more lists, separated by
// semicolons, every one of which must have a matching entry; each is host:port
// entries separated by commas. The port may be "*". The host of permitopen is
// compared literally, "*" being any; the host of permitlisten is a pattern. An
// empty list matches nothing.

// checkDirectTCPIP holds the target of a direct-tcpip channel (RFC 4254,
// section 7.2) against permitopen.
func checkDirectTCPIP(p *ssh.Permissions, payload []byte) error {
	lists, restricted := p.CriticalOptions[PermitOpen]
	if !restricted {
		return nil
	}
	var open struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(payload, &open); err != nil {
		return denied("direct-tcpip request cannot be read: %v", err)
	}
	if !allListsPermit(lists, open.Host, open.Port, matchLiteral) {
		return denied("forwarding to %.255q port %d is not among the targets you were granted", open.Host, open.Port)
	}
	return nil
}

// checkTCPIPForward holds the address of a tcpip-forward request (RFC 4254,
// section 7.1) against permitlisten.
func checkTCPIPForward(p *ssh.Permissions, payload []byte) error {
	lists, restricted := p.CriticalOptions[PermitListen]
	if !restricted {
		return nil
	}
	var listen struct {
		Host string
		Port uint32
	}
	if err := ssh.Unmarshal(payload, &listen); err != nil {
		return denied("tcpip-forward request cannot be read: %v", err)
	}
	if !allListsPermit(lists, strings.ToLower(listen.Host), listen.Port, matchWildcard) {
		return denied("listening on %.255q port %d is not among what you were granted", listen.Host, listen.Port)
	}
	return nil
}

// checkDirectStreamlocal refuses sockets to a guest whose targets are listed:
// sshd lets them pass, which would make permitopen="localhost:8080" a way to
// /var/run/docker.sock.
func checkDirectStreamlocal(p *ssh.Permissions, _ []byte) error {
	if _, restricted := p.CriticalOptions[PermitOpen]; restricted {
		return denied("forwarding to sockets is not among the targets you were granted")
	}
	return nil
}

func checkStreamlocalForward(p *ssh.Permissions, _ []byte) error {
	if _, restricted := p.CriticalOptions[PermitListen]; restricted {
		return denied("listening on sockets is not among what you were granted")
	}
	return nil
}

func matchLiteral(pattern, host string) bool { return pattern == "*" || pattern == host }

// allListsPermit is false for anything that it cannot read.
func allListsPermit(lists, host string, port uint32, match func(pattern, host string) bool) bool {
	for list := range strings.SplitSeq(lists, ";") {
		if !listPermits(list, host, port, match) {
			return false
		}
	}
	return true
}

func listPermits(list, host string, port uint32, match func(pattern, host string) bool) bool {
	for entry := range strings.SplitSeq(list, ",") {
		h, p, err := net.SplitHostPort(entry)
		if err == nil && match(h, host) && (p == "*" || p == strconv.FormatUint(uint64(port), 10)) {
			return true
		}
	}
	return false
}

// bothLists makes the value that holds the restrictions of two: patterns cannot
// be intersected, but both can be asked.
func bothLists(x, y string) string {
	lists := strings.Split(x, ";")
	for list := range strings.SplitSeq(y, ";") {
		if !slices.Contains(lists, list) {
			lists = append(lists, list)
		}
	}
	return strings.Join(lists, ";")
}

// parseForward checks one permitopen= or permitlisten= value of an
// authorized_keys line and returns it in the form that listPermits reads. bare
// says that a port alone stands for any host, as sshd has it for permitlisten.
func parseForward(given string, bare bool) (string, error) {
	value := given
	if bare && !strings.Contains(value, ":") {
		value = "*:" + value
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil || host == "" || strings.ContainsFunc(host, notInHost) {
		return "", fmt.Errorf("%q is not host:port (write an IPv6 address in brackets)", given)
	}
	if port == "*" {
		return net.JoinHostPort(host, port), nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("%q: the port must be 1 to 65535 or *", given)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// forwardLists makes the critical options for lists of forwardings, as
// authorized_keys lines have them one by one. Nil makes none, an empty list one
// that matches nothing.
func forwardLists(open, listen []string) (map[string]string, error) {
	options := map[string]string{}
	for _, one := range []struct {
		name, option string
		list         []string
		bare         bool
	}{{"permit_open", PermitOpen, open, false}, {"permit_listen", PermitListen, listen, true}} {
		if one.list == nil {
			continue
		}
		value, err := joinForwards(one.list, one.bare)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		options[one.option] = value
	}
	return options, nil
}

// CheckPermitOpen says what is wrong with one entry of [Grant.PermitOpen].
func CheckPermitOpen(entry string) error {
	_, err := joinForwards([]string{entry}, false)
	return err
}

// CheckPermitListen says what is wrong with one entry of [Grant.PermitListen].
func CheckPermitListen(entry string) error {
	_, err := joinForwards([]string{entry}, true)
	return err
}

func joinForwards(list []string, bare bool) (string, error) {
	entries := make([]string, len(list))
	for i, value := range list {
		if bare { // as requests are folded, too
			value = strings.ToLower(value)
		}
		entry, err := parseForward(value, bare)
		if err != nil {
			return "", plain(err)
		}
		entries[i] = entry
	}
	value := strings.Join(entries, ",")
	if len(value) > maxForwards {
		return "", fmt.Errorf("%d bytes long, %d are allowed", len(value), maxForwards)
	}
	return value, nil
}

func notInHost(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`,;"'\`, r)
}
