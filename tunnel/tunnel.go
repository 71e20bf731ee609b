// Package tunnel carries streams from a gateway to an agent over one
// connection that the agent dials, because nothing can dial an agent.
package tunnel

import (
	"context"
	"errors"
	"net"
	"time"
)

// ALPN is the TLS application protocol of a tunnel. Over a WebSocket it is
// the subprotocol.
const ALPN = "stagedoor-tunnel/1"

// WebSocketPath is where a gateway takes tunnels over a WebSocket.
const WebSocketPath = "/tunnel"

// ErrTooManyStreams is returned by Dial when the tunnel has MaxStreams open.
var ErrTooManyStreams = errors.New("tunnel: too many streams")

// ErrClosed is returned once a tunnel has been closed. It wraps [net.ErrClosed].
var ErrClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string { return "tunnel: closed" }
func (closedError) Unwrap() error { return net.ErrClosed }

// A Tunnel is the gateway's side of a connection with an agent.
type Tunnel struct{}

// Hello returns what the agent said of itself.
func (t *Tunnel) Hello() Hello { panic("todo") }

// Dial opens a stream.
func (t *Tunnel) Dial(ctx context.Context, h StreamHeader) (net.Conn, error) { panic("todo") }

// Control returns the control stream.
func (t *Tunnel) Control() *Control { panic("todo") }

// Streams returns the number of open streams.
func (t *Tunnel) Streams() int { panic("todo") }

// LastRead returns when a byte was last read from the agent.
func (t *Tunnel) LastRead() time.Time { panic("todo") }

// Probe asks the agent for a sign of life.
func (t *Tunnel) Probe(ctx context.Context) error { panic("todo") }

// Done is closed when the tunnel has ended.
func (t *Tunnel) Done() <-chan struct{} { panic("todo") }

// Err tells why the tunnel has ended; nil while it lives.
func (t *Tunnel) Err() error { panic("todo") }

// Close ends the tunnel and all its streams.
func (t *Tunnel) Close() error { panic("todo") }
