package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy is an HTTP proxy that knows CONNECT, and names that no one else does.
type proxy struct {
	url     *url.URL
	asked   chan string
	user    string // required if set
	l       net.Listener
	running sync.WaitGroup
}

func startProxy(t *testing.T, names map[string]string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, asked: make(chan string, 16), url: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(c, names) })
		}
	})
	t.Cleanup(func() { l.Close(); p.running.Wait() })
	return p
}

func (p *proxy) serve(c net.Conn, names map[string]string) {
	defer c.Close()
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		io.WriteString(c, "HTTP/1.1 405 Only CONNECT\r\n\r\n")
		return
	}
	p.asked <- req.Host
	if auth := req.Header.Get("Proxy-Authorization"); p.user != "" && auth == "" {
		io.WriteString(c, "HTTP/1.1 407 Who are you\r\n\r\n")
		return
	}
	target := req.Host
	if a, ok := names[target]; ok {
		target = a
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 No way\r\n\r\n")
		return
	}
	defer out.Close()
	io.WriteString(c, "HTTP/1.1 200 Connected\r\n\r\n")
	back := make(chan struct{})
	go func() {
		defer close(back)
		io.Copy(c, out)
		c.Close()
	}()
	io.Copy(out, in)
	out.Close()
	<-back
}

func TestThroughAProxy(t *testing.T) {
	g := startGateway(t, nil)
	p := startProxy(t, map[string]string{"gateway.test:443": g.addr})
	p.user = "me"
	d := newDialer(t, "gateway.test")
	u := *p.url
	u.User = url.UserPassword("me", "hunter2")
	d.Proxy = http.ProxyURL(&u)
	tun, l := connect(t, g, d)
	if host := await(t, "CONNECT", p.asked); host != "gateway.test:443" {
		t.Errorf("the proxy was asked for %s", host)
	}
	if a := l.Addr().String(); !strings.HasPrefix(a, "127.0.0.1:") {
		t.Errorf("local address is %s", a)
	}
	served := run(func() error { return serveEcho(l) })
	dialEcho(t, tun)
	l.CloseNow()
	await(t, "serve", served)

	d.Proxy = http.ProxyURL(p.url)
	if _, err := d.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "Who are you") {
		t.Errorf("without a password: %v", err)
	}
	d.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("http://me:hunter2@x: bad") }
	if _, err := d.Dial(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("with a bad proxy: %v", err)
	}
}

// A child process with HTTPS_PROXY set reaches a gateway whose name only the
// proxy can resolve.
func TestProxyFromEnvironment(t *testing.T) {
	g := startGateway(t, nil)
	p := startProxy(t, map[string]string{"gateway.test:443": g.addr})
	root := filepath.Join(t.TempDir(), "root.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: makeTLS().der}
	if err := os.WriteFile(root, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "TUNNEL_TEST_DIAL=gateway.test", "TUNNEL_TEST_ROOT="+root, "HTTPS_PROXY="+p.url.String(), "NO_PROXY=", "no_proxy=", "https_proxy=")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tun := g.next(t)
	dialEcho(t, tun)
	tun.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("child: %v", err)
	}
}

func TestFallsBackToTheWebSocket(t *testing.T) {
	tests := map[string]func(*tls.Config){
		"ALPN is ignored": func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
		"ALPN is refused": func(c *tls.Config) {
			c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				if slices.Contains(h.SupportedProtos, ALPN) {
					return nil, errors.New("what is this?")
				}
				return nil, nil
			}
		},
		"TLS 1.2": func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, func(g *gateway) { change(g.server.TLSConfig) })
			l, err := newDialer(t, g.addr).Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if name == "TLS 1.2" { // the direct way was tried and refused
				await(t, "Accept", g.errs)
			}
			tun := g.next(t)
			served := run(func() error { return serveEcho(l) })
			dialEcho(t, tun)
			if tun.Hello().AgentKey == nil {
				t.Error("no key")
			}
			tun.Close()
			await(t, "serve", served)
		})
	}
}

func TestDialErrors(t *testing.T) {
	plain := func(h http.HandlerFunc) func(*gateway) {
		return func(g *gateway) {
			g.server.Handler = h
			g.server.TLSConfig.NextProtos = []string{"http/1.1"}
		}
	}
	var elsewhere atomic.Bool
	tests := map[string]struct {
		gateway func(*gateway)
		dialer  func(*Dialer)
		want    string
	}{
		"not trusted":   {nil, func(d *Dialer) { d.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool()} }, "add the gateway's CA"},
		"another name":  {nil, func(d *Dialer) { d.TLSConfig.ServerName = "other.test" }, "other.test"},
		"not a gateway": {plain(http.NotFound), nil, "404"},
		"sent elsewhere": {plain(func(w http.ResponseWriter, r *http.Request) {
			elsewhere.Store(r.URL.Path != WebSocketPath)
			http.Redirect(w, r, "/other", http.StatusFound)
		}), nil, "302"},
		"another socket": {plain(func(w http.ResponseWriter, r *http.Request) { otherWebSocket(w, r) }), nil, "not a gateway's"},
		"no certificate": {func(g *gateway) {
			g.server.TLSConfig.Certificates = nil
			g.server.TLSConfig.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none yet") }
		}, nil, "tls: internal error (the gateway may have no certificate yet)"},
		"nobody at home":  {nil, func(d *Dialer) { d.Gateway = "127.0.0.1:1" }, "refused"},
		"an endless wait": {nil, func(d *Dialer) { d.Gateway, d.HelloTimeout = deafServer(t), 500*time.Millisecond }, "deadline"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, tt.gateway)
			d := newDialer(t, g.addr)
			if tt.dialer != nil {
				tt.dialer(d)
			}
			_, err := d.Dial(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial: %v, want %q", err, tt.want)
			}
		})
	}
	if elsewhere.Load() {
		t.Error("a redirect was followed")
	}
}

// otherWebSocket upgrades without saying a nonce.
func otherWebSocket(w http.ResponseWriter, r *http.Request) {
	c, _, err := UpgradeWebSocket(noNonce{w}, r)
	if err == nil {
		c.Close()
	}
}

type noNonce struct{ http.ResponseWriter }

func (w noNonce) WriteHeader(code int) {
	w.Header().Del(nonceHeader)
	w.ResponseWriter.WriteHeader(code)
}

func (w noNonce) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// deafServer takes connections and never answers.
func deafServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestUpgradeRefusesOthers(t *testing.T) {
	g := startGateway(t, nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: makeTLS().roots}}}
	defer client.CloseIdleConnections()
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
	browser := upgrade.Clone()
	browser.Set("Origin", "https://"+g.addr)
	for name, tt := range map[string]struct {
		header http.Header
		want   int
	}{
		"a plain request": {nil, http.StatusUpgradeRequired},
		"a browser":       {browser, http.StatusForbidden},
		"no subprotocol":  {upgrade, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+g.addr+WebSocketPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = tt.header
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("status is %d, want %d", resp.StatusCode, tt.want)
			}
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	d := newDialer(t, deafServer(t))
	ctx, cancel := context.WithCancel(t.Context())
	dial := run(func() error { _, err := d.Dial(ctx); return err })
	cancel()
	if err := await(t, "Dial", dial); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v", err)
	}
}
