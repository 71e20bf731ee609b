package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stagedoor/stagedoor/tunnel"
)

// GuestWebSocketPath is where the HTTPS port takes guests whose network lets
// only HTTPS out: SSH in binary messages, as `stagedoor proxy` speaks it.
const GuestWebSocketPath = "/ssh"

// sniffTimeout is how long a client of the HTTPS port may stay silent before it
// is taken for an SSH client that waits for the server's version (RFC 4253
// §4.2 lets both sides speak first; a TLS client always does).
const sniffTimeout = 2 * time.Second

// ServeHTTPS accepts tunnels, guests and browsers on l until the gateway drains
// or closes, and returns ErrClosed then. It closes l. SSH clients are told from
// TLS by their first byte, tunnels from HTTPS by ALPN.
func (s *Server) ServeHTTPS(l net.Listener) error { return s.serve(l, s.serveHTTPS) }

func (s *Server) serveHTTPS(nc net.Conn) {
	c, ok := s.enter(nc)
	if !ok {
		return
	}
	first, err := peek(c)
	switch {
	case err != nil:
		c.Close()
	case first.first == recordHandshake:
		if !s.webConns.put(tls.Server(first, s.tlsConfig())) {
			c.Close()
		}
	case first.first == 'S' || first.first == 0:
		defer c.Close()
		s.serveSSH(first, c)
	default:
		fmt.Fprint(c, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks HTTPS and SSH.\n")
		c.Close()
	}
}

func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{tunnel.ALPN, "http/1.1", "acme-tls/1"},
		GetCertificate: s.certificate,
	}
}

// certificate is that of the settings. net/http would take a panic in it for one of
// its own business, and not tell.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (c *tls.Certificate, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked("certificate", v, debug.Stack())
			c, err = nil, errors.New("internal error")
		}
	}()
	return s.settings.Load().Certificate(hello)
}

// recordHandshake is the first byte of every TLS connection (RFC 8446 §5.1).
const recordHandshake = 22

// peekedConn gives back the byte that told SSH from TLS.
type peekedConn struct {
	*conn
	first byte // 0: nothing came
	given bool
}

// peek waits for the first byte of a connection. Its deadline is gone
// afterwards.
func peek(c *conn) (*peekedConn, error) {
	c.SetReadDeadline(time.Now().Add(sniffTimeout))
	defer c.SetReadDeadline(time.Time{})
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		if isTimeout(err) {
			return &peekedConn{conn: c, given: true}, nil
		}
		return nil, err
	}
	return &peekedConn{conn: c, first: b[0]}, nil
}

// Read returns the byte that was looked at, then what follows it. Like that of
// any net.Conn that speaks SSH or TLS it is called by one goroutine at a time.
func (p *peekedConn) Read(b []byte) (int, error) {
	if p.given || len(b) == 0 {
		return p.conn.Read(b)
	}
	p.given = true
	b[0] = p.first
	return 1, nil
}

// newWebServer speaks HTTP/1.1 with what the sniffer says is TLS, and hands
// connections that negotiate the tunnel's ALPN to serveTunnel.
func (s *Server) newWebServer() *http.Server {
	return &http.Server{
		Handler:           s.guard(s.webHandler()),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(c))
		},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			tunnel.ALPN: func(_ *http.Server, c *tls.Conn, _ http.Handler) {
				s.track(func() {
					defer s.recover("tunnel", c)
					s.serveTunnel(c, connOf(c), nil)
				})
			},
		},
	}
}

type connKey struct{}

// connOf finds the connection that a TLS connection of serveHTTPS rides on.
func connOf(c net.Conn) *conn {
	return c.(*tls.Conn).NetConn().(*peekedConn).conn
}

// guard has no connection pay for not signing in that came for one of our pages:
// tunnels and guests are judged by how they sign in. A defect ends one connection.
func (s *Server) guard(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*conn)
		defer s.recover("request", c)
		_, page := mux.Handler(r)
		switch {
		case r.URL.Path == tunnel.WebSocketPath || r.URL.Path == GuestWebSocketPath:
			c.offence.Store(int32(noSignIn)) // whatever it looked at before
		case page != "":
			c.blame(noOffence)
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) webHandler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+tunnel.WebSocketPath, s.unlessDraining(s.serveTunnelWebSocket))
	mux.HandleFunc("GET "+GuestWebSocketPath, s.unlessDraining(s.serveGuestWebSocket))
	mux.HandleFunc("GET /{$}", s.serveFrontPage)
	mux.HandleFunc("GET /stagedoor.css", servePageFile("stagedoor.css"))
	mux.HandleFunc("GET /stagedoor.svg", servePageFile("stagedoor.svg"))
	mux.HandleFunc("GET /ci/gitlab.yml", s.serveGitLabTemplate)
	mux.HandleFunc("GET /install", s.serveInstall)
	mux.HandleFunc("GET /agents/{name}", s.serveAgent)
	s.addSignIn(mux)
	return mux
}

// unlessDraining turns away who would start anew on a connection from before.
func (s *Server) unlessDraining(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.stopped() {
			w.Header().Set("Connection", "close")
			http.Error(w, "this gateway is shutting down: connect again", http.StatusServiceUnavailable)
			return
		}
		h(w, r)
	}
}

func (s *Server) serveTunnelWebSocket(w http.ResponseWriter, r *http.Request) {
	nc, binding, err := tunnel.UpgradeWebSocket(w, r)
	if err != nil {
		return // it has answered the request
	}
	s.track(func() {
		defer s.recover("tunnel", nc)
		s.serveTunnel(nc, r.Context().Value(connKey{}).(*conn), binding)
	})
}

func (s *Server) serveGuestWebSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered the request
	}
	// The library's connection has a finalizer on a cycle: only its own close
	// frees it. By then c is closed, so that it waits for nobody.
	defer ws.CloseNow()
	c := r.Context().Value(connKey{}).(*conn)
	defer c.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	s.track(func() {
		defer s.recover("guest", c)
		s.serveSSH(websocketConn{websocket.NetConn(ctx, ws, websocket.MessageBinary), c}, c)
	})
}

// websocketConn is SSH in a WebSocket. Its addresses are those of the TCP
// connection below, because source-address restrictions look at them.
type websocketConn struct {
	net.Conn
	below *conn
}

func (c websocketConn) RemoteAddr() net.Addr { return c.below.RemoteAddr() }
func (c websocketConn) LocalAddr() net.Addr  { return c.below.LocalAddr() }

// Close closes the connection below at once: the closing handshake of a
// WebSocket would wait for a peer that may be gone.
func (c websocketConn) Close() error { return c.below.Close() }

// PrivateHandler serves /healthz (the process runs), /readyz (it takes new
// connections) and /metrics, for a listener that only the operator reaches.
func (s *Server) PrivateHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// connQueue is a listener whose connections were accepted elsewhere.
type connQueue struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newConnQueue() *connQueue {
	q := &connQueue{conns: make(chan net.Conn), done: make(chan struct{})}
	q.close = sync.OnceFunc(func() { close(q.done) })
	return q
}

// put hands c to whoever accepts, and reports false when nobody will.
func (q *connQueue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

// Accept waits for the next connection.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (q *connQueue) Close() error {
	q.close()
	return nil
}

// Addr is of no use here and names the kind of listener.
func (q *connQueue) Addr() net.Addr { return queueAddr{} }

type queueAddr struct{}

func (queueAddr) Network() string { return "queue" }
func (queueAddr) String() string  { return "queue" }
