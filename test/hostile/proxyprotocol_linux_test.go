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

// TestProxyProtocol: a load balancer on the list says who comes, to both listeners.
// Nobody else is believed.
func TestProxyProtocol(t *testing.T) {
	const said = "PROXY TCP4 198.51.100.7 203.0.113.1 4711 22\r\n"
	w := newWorld(t, "proxy_protocol:", "  from: [127.0.0.2]")
	w.startHost("task-b", w.bob, echo)
	signIn := func(source, listener, header string, key testenv.Key) error {
		t.Helper()
		c, err := dialFrom(t.Context(), source, listener)
		mustDo(t, err)
		defer c.Close()
		fmt.Fprint(c, header)
		conn, _, _, err := ssh.NewClientConn(c, "", w.config("task-b", ssh.PublicKeys(key.Signer)))
		if err == nil {
			conn.Close()
		}
		return err
	}
	for _, listener := range []string{w.ssh, w.https} {
		if err := signIn("127.0.0.2", listener, said, w.bob); err != nil {
			t.Errorf("through a load balancer: %v", err)
		}
	}
	if n := strings.Count(w.gateway.Output.String(), `"remote":"198.51.100.7:4711"`); n < 2 {
		t.Errorf("the log has the guest's address %d times", n)
	}
	if err := signIn("127.0.0.2", w.ssh, "", w.bob); err == nil {
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

	if signIn("127.0.0.3", w.https, said, w.bob) == nil {
		t.Error("the HTTPS listener takes a header from anybody")
	}
	signIn("127.0.0.3", w.ssh, strings.Replace(said, "198.51.100.7", "198.51.100.66", 1), w.bob)
	if strings.Contains(w.gateway.Output.String(), "198.51.100.66") {
		t.Error("anybody can say where he comes from")
	}
}
