package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stagedoor/stagedoor/gateway"
)

// faraway is a name that nobody resolves but the CONNECT proxy below. Go's HTTP
// client uses no proxy for localhost.
const (
	faraway = "gateway.test"
	moved   = "moved.test"
)

// servers are what scripts find in their environment: an HTTPS server with the
// gateway's path for guests (WEB_PORT, trusted by FARAWAY_CA), a CONNECT proxy
// that leads to it whatever it is asked for (CONNECT_PROXY), and a port that is
// taken (OCCUPIED).
type servers struct {
	web      *httptest.Server
	connect  *httptest.Server
	occupied net.Listener
	ca       []byte // PEM
}

func startServers(t *testing.T) *servers {
	t.Helper()
	cert := certificateFor(t, faraway, moved, "localhost")
	s := &servers{
		web:      httptest.NewUnstartedServer(echoHandler()),
		occupied: occupied(t),
		ca:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
	}
	s.web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.web.StartTLS()
	t.Cleanup(s.web.Close)
	s.connect = httptest.NewServer(connectProxy(s.web.Listener.Addr().String()))
	t.Cleanup(s.connect.Close)
	return s
}

func (s *servers) setup(e *testscript.Env) {
	file := filepath.Join(e.WorkDir, "faraway.pem")
	if err := os.WriteFile(file, s.ca, 0o600); err != nil {
		e.T().Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.web.Listener.Addr().String())
	e.Setenv("FARAWAY", faraway)
	e.Setenv("FARAWAY_CA", file)
	e.Setenv("WEB_PORT", port)
	e.Setenv("CONNECT_PROXY", s.connect.Listener.Addr().String())
	e.Setenv("OCCUPIED", s.occupied.Addr().String())
}

func certificateFor(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// echoHandler sends back the first line of what comes over the WebSocket, with
// the name by which it was asked for, and closes. Who asks for another name is
// sent to where nothing is encrypted.
func echoHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(gateway.GuestWebSocketPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == net.JoinHostPort(moved, "443") {
			http.Redirect(w, r, "http://"+faraway+gateway.GuestWebSocketPath, http.StatusFound)
			return
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		c := websocket.NetConn(r.Context(), ws, websocket.MessageBinary)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s for %s\n", line[:len(line)-1], r.Host)
		if line == "bye\n" {
			c.Close() // with a closing handshake; otherwise the connection just ends
		}
	})
	return mux
}

// connectProxy tunnels every CONNECT to one address.
func connectProxy(to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		if name, password, ok := proxyAuth(r); !ok || name != "bob" || password != "pw" {
			w.Header().Set("Proxy-Authenticate", "Basic")
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer out.Close()
		in, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(out, buffered); out.Close() })
		wg.Go(func() { io.Copy(in, out); in.Close() })
		wg.Wait()
	})
}

func proxyAuth(r *http.Request) (name, password string, ok bool) {
	r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
	return r.BasicAuth()
}
