package main

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// header is what a load balancer says of a client.
func header(t *testing.T, version byte, client string) string {
	t.Helper()
	raw, err := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)),
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.9:22"))).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// A load balancer's word counts when it is on the list; from anybody else it is
// data like any other.
func TestProxyProtocol(t *testing.T) {
	trusting := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	others := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	const local = "127.0.0.1"
	v2 := "\r\n\r\n\x00\r\nQUIT\n"
	for _, test := range []struct {
		name, sent string
		from       []netip.Prefix
		remote     string // empty: the connection is of no use
		data       string
	}{
		{"version 1", header(t, 1, "198.51.100.7:1000") + "SSH-2.0-x\n", trusting, "198.51.100.7", "SSH-2.0-x\n"},
		{"version 2", header(t, 2, "198.51.100.7:1000") + "SSH-2.0-x\n", trusting, "198.51.100.7", "SSH-2.0-x\n"},
		{"version 2 for IPv6", header(t, 2, "[2001:db8::7]:1000") + "x\n", trusting, "2001:db8::7", "x\n"},
		{"a load balancer's own check", v2 + "\x20\x00\x00\x00" + "x\n", trusting, local, "x\n"},
		{"a client that is not known", "PROXY UNKNOWN\r\nx\n", trusting, local, "x\n"},
		{"none where one is due", "SSH-2.0-x\r\n", trusting, "", ""},
		{"one from elsewhere", header(t, 1, "198.51.100.7:1000") + "x\n", others, local, header(t, 1, "198.51.100.7:1000")},
		{"nobody is believed", header(t, 2, "198.51.100.7:1000") + "x\n", nil, local, "\r\n"},
		{"an address that is none", "PROXY TCP4 1.2.3 4.5.6.7 1 2\r\nx\n", trusting, "", ""},
		{"a name", "PROXY TCP4 localhost localhost 1 2\r\nx\n", trusting, "", ""},
		{"a line without end", "PROXY TCP4 " + strings.Repeat("1", 4000), trusting, "", ""},
		{"a length that is not kept", v2 + "\x21\x11\x00\x00" + "x\n", trusting, "", ""},
		{"half a header", "PROXY TCP4 1.2.3.4", trusting, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := behindProxies(testenv.Listen(t), test.from)
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			io.WriteString(client, test.sent)
			client.(*net.TCPConn).CloseWrite()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			host, _, err := net.SplitHostPort(c.RemoteAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(testenv.Patience))
			line, err := bufio.NewReader(c).ReadString('\n')
			switch {
			case test.remote == "" && (err == nil || host != local):
				t.Errorf("it comes from %s and says %q", host, line)
			case test.remote != "" && (host != test.remote || line != test.data):
				t.Errorf("it comes from %s and says %q, %v", host, line, err)
			}
		})
	}
}

// Whatever comes, the connection comes from an address, and it never panics.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nx"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		go func() {
			far.SetDeadline(time.Now().Add(testenv.Patience))
			far.Write(data)
			far.Close()
		}()
		defer near.Close()
		c := proxyproto.NewConn(near, proxyproto.WithPolicy(proxyproto.REQUIRE))
		if _, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			if _, _, err := net.SplitHostPort(c.RemoteAddr().String()); err != nil {
				t.Error(err)
			}
		}
		io.Copy(io.Discard, c)
	})
}
