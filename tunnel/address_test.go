package tunnel

import (
	"net"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tt := range []struct{ in, host, port string }{
		{"gateway.example.com:22", "gateway.example.com", "22"},
		{"a-1.B:65535", "a-1.B", "65535"},
		{"192.0.2.1:2222", "192.0.2.1", "2222"},
		{"[2001:db8::1]:22", "2001:db8::1", "22"},
		{long + ":1", long, "1"},
	} {
		host, port, err := ParseAddress(tt.in)
		if host != tt.host || port != tt.port || err != nil {
			t.Errorf("%q: %q, %q, %v", tt.in, host, port, err)
		}
	}
	for _, in := range []string{
		"", ":", ":22", "host", "host:", "host:0", "host:65536", "host:022", "host:+22", "host:ssh", "host:22 ", " host:22",
		"-oProxyCommand=x:22", "a.-b:22", "a-:22", "a..b:22", ".a:22", "a.:22", "$(id):22", "a;b:22", "a b:22", "a\n:22", "a'b:22",
		"user@host:22", "ä.test:22", "[::1%eth0]:22", "[192.0.2.1]:22", "[host]:22", "::1:22", "2001:db8::1", "a_b:22",
		long + "a:22", strings.Repeat("a.", 127) + "a:22",
	} {
		if host, port, err := ParseAddress(in); err == nil {
			t.Errorf("%q was taken as %q, %q", in, host, port)
		}
	}
}

func TestParseGateway(t *testing.T) {
	for in, want := range map[string]string{
		"gateway.test":            "gateway.test:443",
		"gateway.test:8443":       "gateway.test:8443",
		"https://gateway.test":    "gateway.test:443",
		"https://gateway.test/":   "gateway.test:443",
		"HTTPS://gateway.test:1/": "gateway.test:1",
		"wss://gateway.test":      "wss://gateway.test:443",
		"[::1]":                   "[::1]:443",
		"[::1]:8443":              "[::1]:8443",
		"https://[::1]":           "[::1]:443",
	} {
		if g, err := ParseGateway(in); err != nil || g.String() != want {
			t.Errorf("%q: %v, %v", in, g, err)
		}
	}
	for _, in := range []string{"", "http://a", "ws://a", "https://", "https://a/b", "https://a?b", "https://me:hunter2@a", "::1", "a:b", "a:443/", "//a"} {
		g, err := ParseGateway(in)
		if err == nil {
			t.Errorf("%q was taken as %v", in, g)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a.b:22", "[::1]:22", "-o:22", "a:022", "1.2.3.4:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := ParseAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsFunc(host, func(r rune) bool { return notHostRune(r) && r != '.' && r != ':' }) || strings.HasPrefix(host, "-") || host == "" {
			t.Errorf("%q gave host %q", s, host)
		}
		if strings.Trim(port, "0123456789") != "" || port == "" {
			t.Errorf("%q gave port %q", s, port)
		}
		if again := net.JoinHostPort(host, port); again != s {
			t.Errorf("%q became %q", s, again)
		}
	})
}

func FuzzParseGateway(f *testing.F) {
	for _, s := range []string{"a", "a:1", "https://a", "wss://a:2/", "[::1]", "https://[::1]:3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGateway(s)
		if err != nil {
			return
		}
		if again, err := ParseGateway(g.String()); err != nil || again != g {
			t.Errorf("%q gave %+v, whose string gives %+v, %v", s, g, again, err)
		}
		if u := g.url("https"); u.Hostname() != g.Host || u.Port() != g.Port {
			t.Errorf("%q gave the URL %s", s, u)
		}
	})
}
