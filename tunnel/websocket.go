package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
)

// nonceHeader is the header of the response 101 with the gateway's nonce.
const nonceHeader = "Stagedoor-Nonce"

// nonceBinding returns what a Hello's signature covers on a WebSocket.
func nonceBinding(nonce string) []byte { return []byte("websocket:" + nonce) }

// UpgradeWebSocket answers a request for [WebSocketPath] and makes a
// connection of it, for [Accept] with the binding in its options. On error it
// has answered the request. The caller owns the connection, which outlives
// the handler and r's context.
func UpgradeWebSocket(w http.ResponseWriter, r *http.Request) (c net.Conn, binding []byte, err error) {
	if r.Header.Get("Origin") != "" { // every browser sends one, no agent does
		http.Error(w, "tunnels are for agents", http.StatusForbidden)
		return nil, nil, errors.New("upgrade to a tunnel: asked for by a browser")
	}
	if !offersSubprotocol(r) {
		http.Error(w, "the subprotocol of a tunnel is "+ALPN, http.StatusBadRequest)
		return nil, nil, fmt.Errorf("upgrade to a tunnel: the client does not offer the subprotocol %s", ALPN)
	}
	nonce := base64.RawURLEncoding.EncodeToString(randomBytes(32))
	w.Header().Set(nonceHeader, nonce)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{ALPN}})
	if err != nil {
		return nil, nil, fmt.Errorf("upgrade to a tunnel: %w", err)
	}
	return newWebSocketConn(ws, nil), nonceBinding(nonce), nil
}

// offersSubprotocol tells whether a WebSocket that r asks for may be a
// tunnel. What is no request for a WebSocket at all passes: it gets a
// better answer elsewhere.
func offersSubprotocol(r *http.Request) bool {
	if r.Header.Get("Upgrade") == "" {
		return true
	}
	for _, v := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(v, ",") {
			if strings.TrimSpace(p) == ALPN {
				return true
			}
		}
	}
	return false
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// A webSocketConn is a WebSocket's net.Conn that closes without waiting for
// the other side to agree, as the connection may be dead.
type webSocketConn struct {
	net.Conn
	ws  *websocket.Conn
	raw net.Conn // what it runs over, for its addresses; nil if Conn knows them
}

func newWebSocketConn(ws *websocket.Conn, raw net.Conn) *webSocketConn {
	return &webSocketConn{websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws, raw}
}

func (c *webSocketConn) Close() error { return c.ws.CloseNow() }

func (c *webSocketConn) LocalAddr() net.Addr {
	if c.raw != nil {
		return c.raw.LocalAddr()
	}
	return c.Conn.LocalAddr()
}

func (c *webSocketConn) RemoteAddr() net.Addr {
	if c.raw != nil {
		return c.raw.RemoteAddr()
	}
	return c.Conn.RemoteAddr()
}

// webSocket connects to the gateway's WebSocket, through proxy unless it is nil.
func (d *Dialer) webSocket(ctx context.Context, g Gateway, proxy *url.URL) (net.Conn, []byte, error) {
	dialed := make(chan net.Conn, 1)
	tr := &http.Transport{
		Proxy:           http.ProxyURL(proxy),
		TLSClientConfig: d.tlsConfig("http/1.1"),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil {
				select {
				case dialed <- c:
				default: // one request does not dial twice
				}
			}
			return c, err
		},
	}
	defer tr.CloseIdleConnections()
	client := &http.Client{
		Transport: tr,
		// The token is for this gateway only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ws, resp, err := websocket.Dial(ctx, g.url("wss").String(), &websocket.DialOptions{
		HTTPClient:   client,
		Subprotocols: []string{ALPN},
	})
	if err != nil {
		return nil, nil, err
	}
	nonce := resp.Header.Get(nonceHeader)
	if ws.Subprotocol() != ALPN || len(nonce) < 16 || len(nonce) > 256 {
		ws.CloseNow()
		return nil, nil, errors.New("a WebSocket answers, but it is not a gateway's")
	}
	return newWebSocketConn(ws, <-dialed), nonceBinding(nonce), nil
}
