package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultMinBackoff = 500 * time.Millisecond
	defaultMaxBackoff = 10 * time.Second
	dialHelloTimeout  = 30 * time.Second
)

// A Dialer makes an agent's tunnels. Gateway, Key and Hello must be set. It
// must not be changed while in use.
type Dialer struct {
	Gateway      string                                // as ParseGateway takes it
	TLSConfig    *tls.Config                           // nil: the system's roots. NextProtos is not used
	Key          ed25519.PrivateKey                    // the agent's, the same across reconnects
	Hello        func() Hello                          // called for each attempt
	Proxy        func(*http.Request) (*url.URL, error) // nil: http.ProxyFromEnvironment, that is HTTPS_PROXY and NO_PROXY
	PingInterval time.Duration                         // how often the gateway is sent a sign of life; 15s
	DeadAfter    time.Duration                         // how long nothing needs to be read for the tunnel to be dead; 40s
	MinBackoff   time.Duration                         // between Keep's attempts, at first; 500ms
	MaxBackoff   time.Duration                         // after many attempts; 10s
	HelloTimeout time.Duration                         // for one attempt, from dialing to the Welcome; 30s
	OnState      func(State)                           // called by Keep, never twice at once; must not block. nil: not told
	Logger       *slog.Logger                          // details of the protocol at level debug; nil: discard

	OnMessage func(Message) // called with what a gateway sends, as Control.Messages; must not block. nil: not told
}

// A configError is one that no other attempt will mend.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// Dial makes one attempt at a tunnel. It connects with TLS and ALPN, and
// falls back to a WebSocket where that is not understood; through a proxy
// it takes the WebSocket at once. ctx bounds the attempt and not the
// Listener. The error wraps a *Refusal if the gateway refused.
func (d *Dialer) Dial(ctx context.Context) (*Listener, error) {
	g, hello, err := d.prepare()
	if err != nil {
		return nil, configError{fmt.Errorf("dial gateway: %w", err)}
	}
	timeout, cancel := context.WithTimeout(ctx, or(d.HelloTimeout, dialHelloTimeout))
	defer cancel()
	c, binding, err := d.connect(timeout, g)
	if err != nil {
		return nil, fmt.Errorf("dial gateway %s: %w", g, handshakeAdvice(err))
	}
	l, err := d.introduce(timeout, c, hello, binding)
	if err != nil {
		return nil, fmt.Errorf("dial gateway %s: %w", g, err)
	}
	return l, nil
}

// prepare checks what the owner of the Dialer has set.
func (d *Dialer) prepare() (Gateway, Hello, error) {
	g, err := ParseGateway(d.Gateway)
	if err != nil {
		return Gateway{}, Hello{}, err
	}
	if len(d.Key) != ed25519.PrivateKeySize || d.Hello == nil {
		return Gateway{}, Hello{}, errors.New("the dialer has no key or no hello")
	}
	h := d.Hello()
	h.Version = Version
	h.AgentKey = d.Key.Public().(ed25519.PublicKey)
	if err := h.check(); err != nil {
		return Gateway{}, Hello{}, err
	}
	_, err = appendFrame(nil, h, limitHello)
	return g, h, err
}

// connect returns a connection to the gateway and what binds a Hello to it.
func (d *Dialer) connect(ctx context.Context, g Gateway) (net.Conn, []byte, error) {
	proxy, err := d.proxy(g)
	if err != nil {
		return nil, nil, err
	}
	if g.WebSocket || proxy != nil {
		return d.webSocket(ctx, g, proxy)
	}
	// Half the time, for what swallows an ALPN protocol that it does not know.
	deadline, _ := ctx.Deadline()
	direct, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	c, binding, err := d.direct(direct, g)
	if errors.Is(err, errNotDirect) {
		d.logger().Debug("no direct tunnel, trying a WebSocket", "gateway", g.String(), "error", err)
		first := err
		if c, binding, err = d.webSocket(ctx, g, nil); err != nil {
			err = fmt.Errorf("%w; before that: %w", err, first)
		}
	}
	return c, binding, err
}

// proxy returns the proxy on the way to the gateway, nil if there is none.
func (d *Dialer) proxy(g Gateway) (*url.URL, error) {
	find := d.Proxy
	if find == nil {
		find = http.ProxyFromEnvironment
	}
	proxy, err := find(&http.Request{URL: g.url("https")})
	if err != nil {
		// Its words may hold the proxy's password.
		return nil, errors.New("the proxy's address is not a URL: check HTTPS_PROXY")
	}
	return proxy, nil
}

// errNotDirect is wrapped by errors that a WebSocket may get around.
var errNotDirect = errors.New("the gateway does not speak " + ALPN + " here")

// direct connects with TLS 1.3 and ALPN.
func (d *Dialer) direct(ctx context.Context, g Gateway) (net.Conn, []byte, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", g.Address())
	if err != nil {
		return nil, nil, err
	}
	cfg := d.tlsConfig(ALPN, "http/1.1")
	if cfg.ServerName == "" {
		cfg.ServerName = g.Host
	}
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, nil, certificateAdvice(err)
		}
		return nil, nil, fmt.Errorf("%w: %w", errNotDirect, err)
	}
	cs := c.ConnectionState()
	if cs.NegotiatedProtocol != ALPN || cs.Version < tls.VersionTLS13 {
		c.Close()
		return nil, nil, errNotDirect
	}
	binding, err := exporterBinding(c)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, binding, nil
}

// certificateAdvice says what an owner of an agent can do.
func certificateAdvice(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w (add the gateway's CA certificate to the system's, or name its file: --ca-file, STAGEDOOR_CA_FILE)", err)
	}
	return err
}

// handshakeAdvice says what it means that a gateway breaks the handshake off: it
// has no certificate to show. The alert has no type of its own.
func handshakeAdvice(err error) error {
	if strings.Contains(err.Error(), "remote error: tls: internal error") {
		return fmt.Errorf("%w (the gateway may have no certificate yet)", err)
	}
	return err
}

func (d *Dialer) tlsConfig(protocols ...string) *tls.Config {
	cfg := new(tls.Config)
	if d.TLSConfig != nil {
		cfg = d.TLSConfig.Clone()
	}
	cfg.NextProtos = protocols
	return cfg
}

func (d *Dialer) logger() *slog.Logger {
	if d.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Logger
}

// introduce says hello on c, which it owns, and starts listening when welcome.
func (d *Dialer) introduce(ctx context.Context, c net.Conn, h Hello, binding []byte) (*Listener, error) {
	s := newSession(c, true, maxStreams, or(d.DeadAfter, defaultDeadAfter), d.logger())
	l := newListener(s, or(d.HelloTimeout, dialHelloTimeout), d.logger())
	l.onMessage = d.OnMessage
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	err := l.introduce(h, d.Key, binding)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = s.because(err)
		s.close()
		return nil, err
	}
	s.start(or(d.PingInterval, defaultPingInterval))
	s.run(l.acceptStreams)
	return l, nil
}
