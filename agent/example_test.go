//go:build unix

package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/netip"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// A CI system makes the task it runs reachable. It minted the host token when it scheduled the task.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	gateway, token, roots := startGateway(stop)
	a := &agent.Agent{
		Gateway:      gateway,
		Token:        token,
		TLSConfig:    roots, // in production nil: the system's roots
		Env:          []string{"PATH=/usr/bin:/bin", "BUILD=42"},
		Dir:          "/",
		Registered:   func(r agent.Registration) { fmt.Println(r.SSHCommand) },
		SessionStart: func(s agent.SessionInfo) { fmt.Println(s.Identity, "runs a command") },
	}
	fmt.Println(a.Run(ctx))
	// Output:
	// ssh task-42@terminal.example.com
	// alice runs a command
	// build 42 in /
	// context canceled
}

// startGateway stands in for a gateway: it lets the one host in, and on its tunnel a guest who runs a command. Then it calls
// done.
func startGateway(done func()) (address, token string, roots *tls.Config) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	ca, err := ssh.NewSignerFromKey(key)
	check(err)
	token, err = auth.MintToken(key, auth.Token{Task: "task-42", ID: "1", IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour)})
	check(err)
	l, roots := listenTLS(key)
	go func() {
		defer l.Close()
		nc, err := l.Accept()
		check(err)
		t, err := tunnel.Accept(context.Background(), nc, nil, func(context.Context, *tunnel.Tunnel, tunnel.Hello) (tunnel.Welcome, error) {
			return tunnel.Welcome{Address: "terminal.example.com:22", CA: ca.PublicKey().Marshal()}, nil
		})
		check(err)
		defer t.Close()
		visit(t, ca)
		done()
		<-t.Done()
	}()
	return l.Addr().String(), token, roots
}

// visit is what a gateway does for a guest whom it has signed in.
func visit(t *tunnel.Tunnel, ca ssh.Signer) {
	alice := auth.Identity{Name: "alice", Remote: netip.MustParseAddrPort("192.0.2.1:50000")}
	cert, err := auth.IssueGuestCertificate(ca, alice, "task-42", auth.DefaultPermissions(), time.Now(), time.Minute)
	check(err)
	stream, err := t.Dial(context.Background(), tunnel.StreamHeader{Mode: tunnel.ModeSpliced, Remote: alice.Remote.String(), Certificate: cert.Marshal()})
	check(err)
	hostKey, err := ssh.ParsePublicKey(t.Hello().HostKey)
	check(err)
	conn, chans, reqs, err := ssh.NewClientConn(stream, "", &ssh.ClientConfig{User: "task-42", HostKeyCallback: ssh.FixedHostKey(hostKey)})
	check(err)
	client := ssh.NewClient(conn, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	check(err)
	out, err := session.Output("echo build $BUILD in $PWD")
	check(err)
	fmt.Print(string(out))
}

func listenTLS(key ed25519.PrivateKey) (net.Listener, *tls.Config) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	leaf, err := x509.ParseCertificate(der)
	check(err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{tunnel.ALPN}, MinVersion: tls.VersionTLS13,
	})
	check(err)
	return l, &tls.Config{RootCAs: pool}
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
