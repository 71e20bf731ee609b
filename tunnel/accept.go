package tunnel

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// AcceptOptions adjusts Accept. The zero value, or nil, works.
type AcceptOptions struct {
	Binding      []byte        // what UpgradeWebSocket returned; nil: the connection is a *tls.Conn with TLS 1.3
	PingInterval time.Duration // 15s
	DeadAfter    time.Duration // 40s without a byte from the agent
	MaxStreams   int           // 256
	HelloTimeout time.Duration // 10s
	Logger       *slog.Logger  // nil: discard
}

// Accept takes the tunnel of an agent that has connected.
func Accept(ctx context.Context, c net.Conn, o *AcceptOptions, admit func(ctx context.Context, t *Tunnel, h Hello) (Welcome, error)) (*Tunnel, error) {
	panic("todo")
}
