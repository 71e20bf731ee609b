package hostile

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// signIn comes from an address, and says first what a load balancer would.
func (w *world) signIn(source, listener, header string, key testenv.Key) error {
	w.t.Helper()
	c, err := dialFrom(w.t.Context(), source, listener)
	mustDo(w.t, err)
	defer c.Close()
	fmt.Fprint(c, header)
	conn, _, _, err := ssh.NewClientConn(c, "", w.config("task-b", ssh.PublicKeys(key.Signer)))
	if err == nil {
		conn.Close()
	}
	return err
}

// said is what a load balancer says of the client at an address.
func said(address string) string { return "PROXY TCP4 " + address + " 203.0.113.1 4711 22\r\n" }

// TestPenaltyThroughProxy: whoever offers a wrong key is shut out, and not the load
// balancer through which others come.
func TestPenaltyThroughProxy(t *testing.T) {
	w := newWorld(t, "proxy_protocol:", "  from: [127.0.0.2]", "limits:", "  penalties:", "    refused: 1h")
	w.startHost("task-b", w.bob, echo)
	for i, listener := range []string{w.ssh, w.https} {
		stranger, guest := fmt.Sprintf("198.51.100.%d", 2*i), fmt.Sprintf("198.51.100.%d", 2*i+1)
		if err := w.signIn("127.0.0.2", listener, said(stranger), w.alice); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Fatalf("a wrong key: %v", err)
		}
		eventually(t, stranger+" is shut out", func() bool {
			err := w.signIn("127.0.0.2", listener, said(stranger), w.bob)
			return err != nil && !strings.Contains(err.Error(), "unable to authenticate")
		})
		if err := w.signIn("127.0.0.2", listener, said(guest), w.bob); err != nil {
			t.Errorf("somebody else through the same load balancer: %v", err)
		}
	}
}

// TestProxyProtocol: a load balancer on the list says who comes, to both listeners.
// Nobody else is believed.
func TestProxyProtocol(t *testing.T) {
	said := said("198.51.100.7")
	w := newWorld(t, "proxy_protocol:", "  from: [127.0.0.2]")
	w.startHost("task-b", w.bob, echo)
	for _, listener := range []string{w.ssh, w.https} {
		if err := w.signIn("127.0.0.2", listener, said, w.bob); err != nil {
			t.Errorf("through a load balancer: %v", err)
		}
	}
	if n := strings.Count(w.gateway.Output.String(), `"remote":"198.51.100.7:4711"`); n < 2 {
		t.Errorf("the log has the guest's address %d times", n)
	}
	if err := w.signIn("127.0.0.2", w.ssh, "", w.bob); err == nil {
		t.Error("a load balancer needs not say who comes")
	}
	c, err := dialFrom(t.Context(), "127.0.0.2", w.https)
	mustDo(t, err)
	defer c.Close()
	fmt.Fprint(c, strings.Replace(said, "198.51.100.7", "198.51.100.8", 1))
	tc := tls.Client(c, &tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}})
	fmt.Fprint(tc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if line, err := bufio.NewReader(tc).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("TLS through a load balancer: %q, %v", line, err)
	}

	if w.signIn("127.0.0.3", w.https, said, w.bob) == nil {
		t.Error("the HTTPS listener takes a header from anybody")
	}
	w.signIn("127.0.0.3", w.ssh, strings.Replace(said, "198.51.100.7", "198.51.100.66", 1), w.bob)
	if strings.Contains(w.gateway.Output.String(), "198.51.100.66") {
		t.Error("anybody can say where he comes from")
	}
}
