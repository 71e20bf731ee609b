// Package tunnel carries streams from a gateway to an agent over one
// connection that the agent dials, as nobody can dial an agent in a CI task.
//
// An agent keeps a tunnel up and serves what comes through it as it would
// serve any other listener:
//
//	d := &tunnel.Dialer{
//		Gateway: "gateway.example.com",
//		Key:     agentKey,
//		Hello:   func() tunnel.Hello { return tunnel.Hello{Task: "task-1234", Token: token} },
//	}
//	err := d.Keep(ctx, sshServer.Serve)
//
// A gateway accepts it and opens streams:
//
//	t, err := tunnel.Accept(ctx, tlsConn, nil, admit)
//	...
//	c, err := t.Dial(ctx, tunnel.StreamHeader{Mode: tunnel.ModeSpliced, Remote: guest.String()})
//
// # The wire
//
// This is version 1 of the protocol.
//
// The agent connects to the gateway's HTTPS port with TLS 1.3 and the ALPN
// protocol "stagedoor-tunnel/1". Where a proxy stands between, or something
// that ends TLS before the gateway, it opens a WebSocket (RFC 6455) on
// /tunnel with a subprotocol of that name instead. Binary messages then
// carry the bytes, and where one message ends and another begins means
// nothing.
//
// Over this runs yamux, version 0 (github.com/hashicorp/yamux, spec.md), with
// the agent as its client. Windows grow to 4 MiB. Neither side sends yamux
// pings; one that receives a ping ends the tunnel.
//
// A frame is a length of four bytes, big endian, and that many bytes of JSON.
// A reader ignores names that it does not know. []byte is in base64, a time
// as in RFC 3339, a duration in nanoseconds; the JSON names are in the tags
// of the Go types.
//
// The control stream is stream 1, the first and only one that an agent
// opens; a second ends the tunnel. On it the agent sends its Hello in a frame
// of at most 64 KiB, followed by 64 bytes: the signature (ed25519) by its
// agent_key over these, one after the other:
//
//	"stagedoor tunnel hello 1" and a zero byte
//	the length of the binding, four bytes, big endian
//	the binding
//	the JSON of the Hello, byte by byte as it was sent
//
// The binding makes the Hello worthless on any other connection. With ALPN
// it is "tls-exporter:" and 32 bytes of keying material (RFC 8446 §7.5),
// exported with the label "EXPORTER-stagedoor-tunnel-1" and an empty context.
// Over a WebSocket it is "websocket:" and the value of the header
// Stagedoor-Nonce in the response 101.
//
// The gateway answers with a frame of at most 64 KiB, {"welcome": Welcome}
// or {"refusal": Refusal}. After a refusal it gives the agent some seconds to
// hang up. Until it is welcomed an agent sends at most 256 KiB.
//
// From then on both sides send Messages on the control stream, in frames of
// at most 16 KiB, whenever they like, and ignore those of a type that they do
// not know. Each sends a ping every 15 seconds and answers each ping with a
// pong, and takes the other for dead when it has read no byte at all for 40
// seconds. When the control stream ends, so does the tunnel.
//
// An agent that is about to end says "bye", whereupon the gateway closes the
// tunnel and waits for no other. To an agent that is told "replaced" or "over" the
// gateway gives some seconds to hang up.
//
// Every other stream is opened by the gateway and has an even number. It
// begins with a StreamHeader in a frame of at most 32 KiB, which may be
// sent ahead of the Welcome. After that the bytes of the stream's user travel
// both ways.
//
// On a spliced stream a FIN says that its sender will neither send nor read any
// more. The receiver answers with a FIN at once, and may still read what came
// before; so one round trip after either side has closed a stream, both have
// let go of it. On an end-to-end stream a FIN says only that its sender will not
// send any more. The receiver may go on sending, and answers with a FIN of its
// own within five minutes: then the stream is reset.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// ALPN is the application protocol of a tunnel in TLS; over a WebSocket it
// is the subprotocol.
const ALPN = "stagedoor-tunnel/1"

// WebSocketPath is where a gateway takes tunnels over a WebSocket.
const WebSocketPath = "/tunnel"

// ErrTooManyStreams is returned by Dial when MaxStreams are open.
var ErrTooManyStreams = errors.New("tunnel: too many streams")

// ErrClosed is why a tunnel has ended that was closed on this side. Calls
// that come too late return an error that wraps it and tells the reason; Err
// has the reason itself. It wraps net.ErrClosed.
var ErrClosed = fmt.Errorf("tunnel: %w", net.ErrClosed)

// A Tunnel is the gateway's side of a connection with an agent. [Accept]
// makes it. Its methods may be called at once.
type Tunnel struct {
	session *session
	hello   Hello
}

// Hello returns what the agent said of itself. Its AgentKey is proven, all
// else is as good as the token in it.
func (t *Tunnel) Hello() Hello { return t.hello }

// RemoteAddr returns the address that the agent, or a proxy before it,
// connected from.
func (t *Tunnel) RemoteAddr() net.Addr { return t.session.link.RemoteAddr() }

// Dial opens a stream to the agent, a [*Stream]. It does not wait for the
// agent to take it; whoever speaks on it should have a deadline for the first
// answer. It never blocks past ctx, which does not bound the stream
// afterwards. The error wraps ErrTooManyStreams, ErrClosed (the tunnel has
// ended or the agent takes no more streams) or ctx's error.
//
// A stream counts until both sides have closed it.
func (t *Tunnel) Dial(ctx context.Context, h StreamHeader) (net.Conn, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	if err := t.session.reserve(); err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	result := make(chan opened, 1)
	go func() {
		st, err := t.session.open(h)
		result <- opened{st, err}
	}()
	select {
	case r := <-result:
		if r.err != nil {
			return nil, fmt.Errorf("open a stream: %w", r.err)
		}
		return r.stream, nil
	case <-ctx.Done():
		go func() { // what waits for the connection cannot be called back
			if r := <-result; r.err == nil {
				r.stream.Close()
			}
		}()
		return nil, fmt.Errorf("open a stream: %w", ctx.Err())
	}
}

type opened struct {
	stream *Stream
	err    error
}

// Control returns the control stream.
func (t *Tunnel) Control() *Control { return t.session.control }

// handle acts on a message from the agent.
func (t *Tunnel) handle(m Message) {
	if m.Type == TypeDrain {
		t.session.refuseStreams()
	}
}

// Streams returns how many streams are open, zero once the tunnel has ended.
func (t *Tunnel) Streams() int { return t.session.count() }

// LastRead returns when bytes were last read from the agent. A healthy agent
// of whom nothing else is heard sends some every 15 seconds, so that short
// silence means nothing; use Probe to find out sooner.
func (t *Tunnel) LastRead() time.Time {
	return t.session.link.start.Add(time.Duration(t.session.link.lastRead.Load()))
}

// Probe asks the agent for a sign of life and returns nil as soon as bytes
// arrive, whatever they are. It returns ctx's error when none do, which
// leaves the tunnel as it is, or an error that wraps ErrClosed.
func (t *Tunnel) Probe(ctx context.Context) error {
	heard := t.session.link.heard()
	t.session.control.post(Message{Type: TypePing})
	select {
	case <-heard:
		return nil
	case <-t.session.done:
		return t.session.closedError()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done returns a channel that is closed when the tunnel has ended.
func (t *Tunnel) Done() <-chan struct{} { return t.session.done }

// Err tells why the tunnel has ended: ErrClosed after Close, ErrDead, or
// whatever happened to the connection. It is nil while the tunnel lives.
func (t *Tunnel) Err() error { return t.session.cause() }

// Close ends the tunnel with all its streams, and returns when all that ran
// for it has.
func (t *Tunnel) Close() error {
	t.session.close()
	return nil
}
