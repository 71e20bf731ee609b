package tunnel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("TUNNEL_TEST_DIAL") != "" {
		os.Exit(dialFromEnvironment())
	}
	goleak.VerifyTestMain(m)
}

// hang is how long a test waits for what should happen at once.
const hang = 30 * time.Second

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// testTLS holds a certificate for names that tests use, and its pool.
type testTLS struct {
	cert  tls.Certificate
	roots *x509.CertPool
	der   []byte
}

var makeTLS = sync.OnceValue(func() testTLS {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "tunnel test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		DNSNames:              []string{"localhost", "gateway.test"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return testTLS{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, der}
})

// A gateway is a server that takes tunnels both ways, as a real one does.
type gateway struct {
	addr    string
	options AcceptOptions
	admit   AdmitFunc
	tunnels chan *Tunnel // those that were accepted
	errs    chan error   // of those that were not

	server  *http.Server
	running sync.WaitGroup
	mu      sync.Mutex
	open    []*Tunnel
}

// startGateway starts a gateway that admits everybody unless change says otherwise.
func startGateway(t testing.TB, change func(*gateway)) *gateway {
	t.Helper()
	g := &gateway{
		tunnels: make(chan *Tunnel, 64),
		errs:    make(chan error, 64),
		admit: func(context.Context, *Tunnel, Hello) (Welcome, error) {
			return Welcome{Address: "gateway.test:22"}, nil
		},
	}
	protocols := []string{ALPN, "http/1.1"}
	g.server = &http.Server{ErrorLog: log.New(io.Discard, "", 0)}
	g.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		ALPN: func(_ *http.Server, c *tls.Conn, _ http.Handler) { g.take(c, nil, true) },
	}
	mux := http.NewServeMux()
	mux.HandleFunc(WebSocketPath, func(w http.ResponseWriter, r *http.Request) {
		if c, binding, err := UpgradeWebSocket(w, r); err == nil {
			g.take(c, binding, false)
		}
	})
	g.server.Handler = mux
	g.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{makeTLS().cert}, NextProtos: protocols}
	if change != nil {
		change(g)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = l.Addr().String()
	g.running.Go(func() { g.server.ServeTLS(l, "", "") })
	t.Cleanup(g.close)
	return g
}

// take accepts a tunnel; net/http closes the connection when wait ends.
func (g *gateway) take(c net.Conn, binding []byte, wait bool) {
	g.running.Add(1)
	defer g.running.Done()
	o := g.options
	o.Binding = binding
	t, err := Accept(context.Background(), c, &o, g.admit)
	if err != nil {
		g.errs <- err
		return
	}
	g.mu.Lock()
	g.open = append(g.open, t)
	g.mu.Unlock()
	g.tunnels <- t
	if wait {
		<-t.Done()
		t.Close()
	}
}

func (g *gateway) close() {
	g.server.Close()
	g.mu.Lock()
	for _, t := range g.open {
		t.Close()
	}
	g.mu.Unlock()
	g.running.Wait()
}

// next returns the next tunnel that was accepted.
func (g *gateway) next(t testing.TB) *Tunnel {
	t.Helper()
	select {
	case tun := <-g.tunnels:
		return tun
	case err := <-g.errs:
		t.Fatalf("Accept: %v", err)
	case <-time.After(hang):
		t.Fatal("no tunnel was accepted")
	}
	return nil
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// dialer returns a Dialer for the gateway at addr.
func newDialer(t testing.TB, addr string) *Dialer {
	return &Dialer{
		Gateway:   addr,
		TLSConfig: &tls.Config{RootCAs: makeTLS().roots},
		Key:       newKey(t),
		Hello:     func() Hello { return Hello{Task: "task-1", Token: "secret"} },
		Proxy:     noProxy,
	}
}

// connect returns both ends of a tunnel.
func connect(t testing.TB, g *gateway, d *Dialer) (*Tunnel, *Listener) {
	t.Helper()
	l, err := d.Dial(t.Context())
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { l.CloseNow() })
	return g.next(t), l
}

// pair returns a tunnel over TLS.
func pair(t testing.TB) (*Tunnel, *Listener) {
	g := startGateway(t, nil)
	return connect(t, g, newDialer(t, g.addr))
}

var testHeader = StreamHeader{Mode: ModeSpliced, Remote: "192.0.2.7:4711", Certificate: []byte("certificate")}

// open returns both ends of a new stream.
func openStream(t testing.TB, tun *Tunnel, l *Listener) (gw, agent *Stream) {
	t.Helper()
	c, err := tun.Dial(t.Context(), testHeader)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	return c.(*Stream), a.(*Stream)
}

// eventually waits for what no event tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(hang)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("still not so: %s", what)
		case <-tick.C:
		}
	}
}

// await waits for ch to be closed or sent on.
func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(hang):
		t.Fatalf("waited in vain for %s", what)
	}
	panic("unreachable")
}

// run calls f on another goroutine and returns its result on a channel.
func run[T any](f func() T) <-chan T {
	ch := make(chan T, 1)
	go func() { ch <- f() }()
	return ch
}

// serveEcho is a serve function for Keep.
func serveEcho(l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer c.Close()
			io.Copy(c, c)
		})
	}
}

// checkEcho sends something over c and expects it back.
func checkEcho(t testing.TB, c net.Conn) {
	t.Helper()
	want := []byte("is anybody there?")
	got := make([]byte, len(want))
	c.SetDeadline(time.Now().Add(hang))
	defer c.SetDeadline(time.Time{})
	if _, err := c.Write(want); err != nil {
		t.Fatalf("write: %v", err)
	}
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %q, %v", got, err)
	}
}

// A forwarder passes TCP connections on until it is told otherwise.
type forwarder struct {
	addr    string
	target  string
	l       net.Listener
	running sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	swallow bool          // take bytes, pass none on: a half-open link
	jam     chan struct{} // non-nil: read nothing more until it is closed
}

func startForwarder(t testing.TB, target string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{addr: l.Addr().String(), target: target, l: l}
	f.running.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

func (f *forwarder) accept() {
	for {
		in, err := f.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", f.target)
		if err != nil {
			in.Close()
			continue
		}
		f.mu.Lock()
		f.conns = append(f.conns, in, out)
		f.mu.Unlock()
		f.running.Go(func() { f.pass(out, in) })
		f.running.Go(func() { f.pass(in, out) })
	}
}

func (f *forwarder) pass(dst, src net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		f.mu.Lock()
		jam := f.jam
		f.mu.Unlock()
		if jam != nil {
			<-jam
		}
		n, err := src.Read(buf)
		f.mu.Lock()
		swallow := f.swallow
		f.mu.Unlock()
		if swallow {
			if err != nil {
				return
			}
			continue
		}
		if err == nil {
			_, err = dst.Write(buf[:n])
		}
		if err != nil {
			src.Close()
			dst.Close()
			return
		}
	}
}

// goSilent makes all connections half-open: nothing is passed on, no end told.
func (f *forwarder) goSilent() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.swallow = true
}

// setJam makes the connections take nothing more, or go on.
func (f *forwarder) setJam(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on && f.jam == nil {
		f.jam = make(chan struct{})
	} else if !on && f.jam != nil {
		close(f.jam)
		f.jam = nil
	}
}

// cut closes all connections.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *forwarder) close() {
	f.setJam(false)
	f.l.Close()
	f.cut()
	f.running.Wait()
}

// dialFromEnvironment is what a child process of TestProxyFromEnvironment
// does: net/http reads HTTPS_PROXY only once in a process.
func dialFromEnvironment() int {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv("TUNNEL_TEST_ROOT"))
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		log.Print("no root certificate: ", err)
		return 1
	}
	d := &Dialer{
		Gateway:   os.Getenv("TUNNEL_TEST_DIAL"),
		TLSConfig: &tls.Config{RootCAs: roots},
		Key:       key,
		Hello:     func() Hello { return Hello{Task: "task-1", Token: "secret"} },
	}
	l, err := d.Dial(context.Background())
	if err != nil {
		log.Print(err)
		return 1
	}
	err = serveEcho(l)
	if !errors.Is(err, net.ErrClosed) {
		log.Print(err)
		return 1
	}
	return 0
}
