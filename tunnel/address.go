package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A Gateway is where an agent finds its gateway.
type Gateway struct {
	Host      string // name, or IP address without brackets
	Port      string // decimal, 1 to 65535
	WebSocket bool   // dial the WebSocket at once instead of trying the ALPN protocol first
}

// ParseGateway parses "host", "host:port", "https://host[:port]" or
// "wss://host[:port]"; without a port it is 443. An IPv6 address stands in
// brackets. The path, if any, must be "/".
func ParseGateway(s string) (Gateway, error) {
	g, err := parseGateway(s)
	if err != nil {
		// The input is not repeated: it may be a URL with a password.
		return Gateway{}, fmt.Errorf("gateway address: %w (write host, host:port, https://host or wss://host)", err)
	}
	return g, nil
}

func parseGateway(s string) (Gateway, error) {
	var g Gateway
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		switch strings.ToLower(scheme) {
		case "https":
		case "wss":
			g.WebSocket = true
		default:
			return Gateway{}, errors.New("the scheme is neither https nor wss")
		}
		s = strings.TrimSuffix(rest, "/")
	}
	if !hasPort(s) {
		s += ":443"
	}
	var err error
	g.Host, g.Port, err = ParseAddress(s)
	return g, err
}

// hasPort tells whether s, a host with or without a port, ends in a port. A
// bare IPv6 address does not pass for one: ParseAddress refuses it.
func hasPort(s string) bool {
	return strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, ']')
}

// Address returns host:port, as net.Dial takes it.
func (g Gateway) Address() string { return net.JoinHostPort(g.Host, g.Port) }

// String returns the address in a form that ParseGateway takes.
func (g Gateway) String() string {
	if g.WebSocket {
		return "wss://" + g.Address()
	}
	return g.Address()
}

// url returns the URL of the gateway's WebSocket under the given scheme.
func (g Gateway) url(scheme string) *url.URL {
	return &url.URL{Scheme: scheme, Host: g.Address(), Path: WebSocketPath}
}

// ParseAddress parses host:port as strictly as it takes for both parts to
// stand in an ssh command line or a shell's without quoting: host is an IP
// address (returned without brackets, never with a zone) or a DNS name of
// letters, digits, dots and inner hyphens; port is decimal, 1 to 65535.
// What a gateway calls its address must pass here before it is shown.
func ParseAddress(s string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		return "", "", errors.New("not of the form host:port, IPv6 addresses in brackets")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", "", errors.New("the port is not a number from 1 to 65535")
	}
	if strings.HasPrefix(s, "[") {
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || a.Zone() != "" {
			return "", "", errors.New("not an IPv6 address in the brackets")
		}
		return host, port, nil
	}
	if !isHostName(host) {
		return "", "", errors.New("the host is neither a DNS name nor an IP address")
	}
	return host, port, nil
}

// isHostName tells whether s is a DNS name (RFC 1123 §2.1) or an IPv4 address.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, notHostRune) {
			return false
		}
	}
	return true
}

func notHostRune(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	return !letter && !('0' <= r && r <= '9') && r != '-'
}
