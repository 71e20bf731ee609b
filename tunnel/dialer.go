package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A Dialer makes an agent's tunnels.
type Dialer struct {
	Gateway      string      // "host", "host:port" (443), "https://host[:port]"; "wss://…" forces the WebSocket
	TLSConfig    *tls.Config // nil: system roots
	Key          ed25519.PrivateKey
	Hello        func() Hello                          // called for each attempt
	Proxy        func(*http.Request) (*url.URL, error) // nil: http.ProxyFromEnvironment
	PingInterval time.Duration                         // 15s
	DeadAfter    time.Duration                         // 40s
	MinBackoff   time.Duration                         // 500ms
	MaxBackoff   time.Duration                         // 30s
	HelloTimeout time.Duration                         // 30s
	OnState      func(State)                           // called by Keep, one call at a time
	Logger       *slog.Logger                          // nil: discard
}

// Dial makes one attempt.
func (d *Dialer) Dial(ctx context.Context) (*Listener, error) { panic("todo") }

// A Listener is the agent's side of a tunnel.
type Listener struct{}

var _ net.Listener = (*Listener)(nil)

// Accept returns the next stream, a *Stream.
func (l *Listener) Accept() (net.Conn, error) { panic("todo") }

// Addr returns the local address of the tunnel.
func (l *Listener) Addr() net.Addr { panic("todo") }

// Close stops accepting; the tunnel ends when its last stream has.
func (l *Listener) Close() error { panic("todo") }

// CloseNow ends the tunnel and all its streams.
func (l *Listener) CloseNow() error { panic("todo") }

// Welcome returns what the gateway answered.
func (l *Listener) Welcome() Welcome { panic("todo") }

// Control returns the control stream.
func (l *Listener) Control() *Control { panic("todo") }

// Done is closed when the tunnel has ended.
func (l *Listener) Done() <-chan struct{} { panic("todo") }

// Err tells why the tunnel has ended; nil while it lives.
func (l *Listener) Err() error { panic("todo") }
