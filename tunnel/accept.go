package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	defaultPingInterval = 15 * time.Second
	defaultDeadAfter    = 40 * time.Second
	acceptHelloTimeout  = 10 * time.Second
	defaultMaxStreams   = 256

	// refusalLinger is how long a refused agent has to read its refusal:
	// closing at once could lose it, as bytes of the agent's that nobody
	// read make TCP reset the connection.
	refusalLinger = 5 * time.Second
)

// AcceptOptions adjusts [Accept]. The zero value works, and so does nil.
type AcceptOptions struct {
	Binding      []byte        // what UpgradeWebSocket returned; nil: the connection is a *tls.Conn, of TLS 1.3
	PingInterval time.Duration // how often the agent is sent a sign of life; 15s
	DeadAfter    time.Duration // how long nothing needs to be read for the tunnel to be dead; 40s
	MaxStreams   int           // streams open at once, at most 4096; 256
	HelloTimeout time.Duration // for TLS handshake and Hello; 10s
	Logger       *slog.Logger  // details of the protocol at level debug; nil: discard
}

func (o *AcceptOptions) withDefaults() AcceptOptions {
	var r AcceptOptions
	if o != nil {
		r = *o
	}
	r.PingInterval = or(r.PingInterval, defaultPingInterval)
	r.DeadAfter = or(r.DeadAfter, defaultDeadAfter)
	r.HelloTimeout = or(r.HelloTimeout, acceptHelloTimeout)
	r.MaxStreams = min(or(r.MaxStreams, defaultMaxStreams), maxStreams)
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	return r
}

// or returns v unless it is not positive.
func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// An AdmitFunc decides about an agent whose key has been proven. A *Refusal
// is sent to the agent; any other error is kept from it, and it is told
// CodeUnavailable and to try again. ctx ends when the agent is gone.
//
// It may already hand t to others: streams can be opened from then on, and
// messages wait until the Welcome has been sent.
type AdmitFunc = func(ctx context.Context, t *Tunnel, h Hello) (Welcome, error)

// Accept takes the tunnel of an agent that has connected: it completes the
// TLS handshake if that is still to be done, reads the Hello, checks its
// signature, asks admit and sends its answer.
//
// Accept owns c: it closes it when it returns an error, and the Tunnel does
// when it ends. ctx bounds Accept itself, not the Tunnel that it returns. The
// error is or wraps what admit returned, if it did. When Accept fails after
// admit returned no error, because the agent went away just then, the tunnel
// that admit saw is closed.
func Accept(ctx context.Context, c net.Conn, o *AcceptOptions, admit AdmitFunc) (*Tunnel, error) {
	opt := o.withDefaults()
	hello, cancel := context.WithTimeout(ctx, opt.HelloTimeout)
	defer cancel()
	binding, err := opt.binding(hello, c)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("accept tunnel: %w", err)
	}
	t := &Tunnel{session: newSession(c, false, opt.MaxStreams, opt.DeadAfter, opt.Logger)}
	stop := context.AfterFunc(ctx, func() { t.session.fail(context.Cause(ctx)) })
	err = t.accept(ctx, hello, binding, admit)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		t.session.close()
	}
	t.session.start(opt.PingInterval)
	if err != nil {
		return nil, fmt.Errorf("accept tunnel: %w", err)
	}
	return t, nil
}

// binding returns what the agent's signature must cover, so that a Hello
// counts on one connection only.
func (o *AcceptOptions) binding(ctx context.Context, c net.Conn) ([]byte, error) {
	if o.Binding != nil {
		return o.Binding, nil
	}
	tc, ok := c.(*tls.Conn)
	if !ok {
		return nil, fmt.Errorf("neither a binding nor a TLS connection but %T", c)
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return exporterBinding(tc)
}

// exporterBinding derives a binding from a TLS connection (RFC 9266 has the
// idea). Only TLS 1.3 ties the exporter to the whole handshake by itself.
func exporterBinding(c *tls.Conn) ([]byte, error) {
	cs := c.ConnectionState()
	if cs.Version < tls.VersionTLS13 {
		return nil, errors.New("a tunnel needs TLS 1.3")
	}
	key, err := cs.ExportKeyingMaterial("EXPORTER-stagedoor-tunnel-1", nil, 32)
	if err != nil {
		return nil, fmt.Errorf("TLS exporter: %w", err)
	}
	return append([]byte("tls-exporter:"), key...), nil
}

// accept reads the Hello within the context hello, and answers it within ctx.
func (t *Tunnel) accept(ctx, hello context.Context, binding []byte, admit AdmitFunc) error {
	stop := context.AfterFunc(hello, func() { t.session.fail(fmt.Errorf("hello: %w", context.Cause(hello))) })
	defer stop()
	stream, err := t.session.mux.AcceptStreamWithContext(hello)
	if err != nil {
		return t.session.because(err)
	}
	t.session.setControl(newControl(t.session, stream, t.handle))
	if t.hello, err = readHello(stream, binding); err != nil {
		return t.refuse(stream, t.session.because(err))
	}
	if !stop() {
		return t.session.because(context.Cause(hello))
	}
	w, err := t.admit(ctx, admit)
	if err != nil {
		return t.refuse(stream, err)
	}
	if w.Now.IsZero() {
		w.Now = time.Now()
	}
	if err := writeFrame(stream, reply{Welcome: &w}, limitReply); err != nil {
		return t.session.because(fmt.Errorf("send welcome: %w", err))
	}
	return nil
}

// admit asks the caller's admit, for no longer than the agent waits.
func (t *Tunnel) admit(ctx context.Context, admit AdmitFunc) (Welcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-t.session.done:
			cancel(t.session.closedError())
		case <-finished:
		}
	}()
	return admit(ctx, t, t.hello)
}

// refuse tells the agent what it may know of cause, gives it time to read
// that, and returns cause.
func (t *Tunnel) refuse(stream *yamux.Stream, cause error) error {
	r, ok := errors.AsType[*Refusal](cause)
	if !ok {
		if t.hello.AgentKey == nil { // not an agent at all
			return cause
		}
		r = &Refusal{Code: CodeUnavailable, Message: "the gateway cannot decide at the moment", Retry: true}
	}
	timer := time.AfterFunc(refusalLinger, func() { t.session.fail(cause) })
	defer timer.Stop()
	if writeFrame(stream, reply{Refusal: r.plain()}, limitReply) == nil {
		io.Copy(io.Discard, stream)
	}
	return cause
}

// because returns why the session ended if it has, since what its streams
// then say is less to the point; otherwise err.
func (s *session) because(err error) error {
	if cause := s.cause(); cause != nil {
		return cause
	}
	return err
}

func (s *session) setControl(c *Control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = c
}
