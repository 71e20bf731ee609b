package tunnel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

func TestHelloAndWelcome(t *testing.T) {
	deadline := time.Now().Add(time.Hour).Truncate(time.Second)
	want := Hello{Task: "task-7", Renewal: "renewal", HostKey: []byte("host key"), Labels: map[string]string{"job": "build"}, EndToEndOnly: true}
	for _, way := range []string{"", "wss://"} {
		t.Run("direct "+way, func(t *testing.T) {
			g := startGateway(t, func(g *gateway) {
				g.admit = func(context.Context, *Tunnel, Hello) (Welcome, error) {
					return Welcome{Address: "a.test:2222", CA: []byte("ca"), Deadline: deadline, Renewal: "again"}, nil
				}
			})
			d := newDialer(t, way+g.addr)
			d.Hello = func() Hello { return want }
			tun, l := connect(t, g, d)
			h := tun.Hello()
			if h.Task != want.Task || h.Renewal != want.Renewal || h.Token != "" || !bytes.Equal(h.HostKey, want.HostKey) ||
				h.Labels["job"] != "build" || !h.EndToEndOnly || h.Version != 1 || !h.AgentKey.Equal(d.Key.Public()) || len(h.Signature) != 64 {
				t.Errorf("hello is %+v", h)
			}
			w := l.Welcome()
			if w.Address != "a.test:2222" || string(w.CA) != "ca" || !w.Deadline.Equal(deadline) || w.Renewal != "again" || time.Since(w.Now) > time.Minute {
				t.Errorf("welcome is %+v", w)
			}
		})
	}
}

func TestDialWhileAdmitting(t *testing.T) {
	dialed := make(chan net.Conn, 1)
	g := startGateway(t, func(g *gateway) {
		g.admit = func(ctx context.Context, tun *Tunnel, _ Hello) (Welcome, error) {
			c, err := tun.Dial(ctx, testHeader)
			dialed <- c
			return Welcome{}, err
		}
	})
	_, l := connect(t, g, newDialer(t, g.addr))
	defer l.CloseNow()
	go serveEcho(l)
	c := <-dialed
	checkEcho(t, c)
	c.Close()
}

func TestMessages(t *testing.T) {
	tun, l := pair(t)
	sends := []Message{{Type: TypeState, State: "guests: 2"}, {Type: "of the future"}, {Type: TypePing}, {Type: TypeDeadline, Deadline: time.Unix(1e9, 0).UTC(), Reason: "more\x1b[31m"}}
	for _, side := range []struct {
		name     string
		from, to *Control
	}{{"to the agent", tun.Control(), l.Control()}, {"to the gateway", l.Control(), tun.Control()}} {
		t.Run(side.name, func(t *testing.T) {
			for _, m := range sends {
				if err := side.from.Send(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			if m := await(t, "a message", side.to.Messages()); m != sends[0] {
				t.Errorf("got %+v", m)
			}
			if m := await(t, "a message", side.to.Messages()); m.Type != TypeDeadline || !m.Deadline.Equal(sends[3].Deadline) || m.Reason != "more [31m" {
				t.Errorf("got %+v", m)
			}
		})
	}
	tun.Close()
	for _, c := range []*Control{tun.Control(), l.Control()} {
		if m, ok := <-c.Messages(); ok {
			t.Errorf("got %+v from a closed tunnel", m)
		}
		if err := c.Send(t.Context(), Message{Type: TypeState}); !errors.Is(err, ErrClosed) {
			t.Errorf("Send: %v", err)
		}
	}
}

// A user who does not read messages neither blocks the tunnel nor fills memory.
func TestMessagesNobodyReads(t *testing.T) {
	tun, l := pair(t)
	for i := range 100 {
		if err := tun.Control().Send(t.Context(), Message{Type: TypeDeadline, Deadline: time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tun.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newest message", func() bool { return (<-l.Control().Messages()).Deadline.Unix() == 99 })
}

func TestStreamLimit(t *testing.T) {
	g := startGateway(t, func(g *gateway) { g.options.MaxStreams = 3 })
	tun, l := connect(t, g, newDialer(t, g.addr))
	for range 20 {
		var gws, agents [3]*Stream
		for i := range gws {
			gws[i], agents[i] = openStream(t, tun, l)
		}
		if _, err := tun.Dial(t.Context(), testHeader); !errors.Is(err, ErrTooManyStreams) {
			t.Fatalf("Dial beyond the limit: %v", err)
		}
		for i := range gws {
			agents[i].Close()
			gws[i].Close()
		}
		eventually(t, "the slots are free", func() bool { return tun.Streams() == 0 })
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	tun, l := pair(t)
	done := make(chan error, 1)
	go func() { done <- serveEcho(l) }()
	var wg sync.WaitGroup
	for range defaultMaxStreams {
		wg.Go(func() {
			c, err := tun.Dial(t.Context(), testHeader)
			if err != nil {
				t.Errorf("Dial: %v", err)
				return
			}
			checkEcho(t, c)
			c.Close()
		})
	}
	wg.Wait()
	tun.Close()
	await(t, "serve", done)
}

func TestDialRefusesABadHeader(t *testing.T) {
	tun, _ := pair(t)
	for _, h := range []StreamHeader{{}, {Mode: "x"}, {Mode: ModeSpliced, Remote: "host"}, {Mode: ModeSpliced, Certificate: make([]byte, 20<<10)}} {
		if _, err := tun.Dial(t.Context(), h); err == nil {
			t.Errorf("%+v was taken", h)
		}
	}
	if n := tun.Streams(); n != 0 {
		t.Errorf("%d streams", n)
	}
}

func TestRefusal(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want Refusal
	}{
		{"final", &Refusal{Code: CodeBadToken, Message: "who are\nyou?"}, Refusal{Code: CodeBadToken, Message: "who are you?"}},
		{"retry", &Refusal{Code: CodeHeld, Retry: true, RetryAfter: time.Minute}, Refusal{Code: CodeHeld, Retry: true, RetryAfter: time.Minute}},
		{"wrapped", errors.Join(&Refusal{Code: CodeLimit}), Refusal{Code: CodeLimit}},
		{"other", errors.New("the password of the database is 1234"), Refusal{Code: CodeUnavailable, Message: "the gateway cannot decide at the moment", Retry: true}},
	}
	for _, way := range []string{"", "wss://"} {
		for _, tt := range tests {
			t.Run(tt.name+way, func(t *testing.T) {
				g := startGateway(t, func(g *gateway) {
					g.admit = func(context.Context, *Tunnel, Hello) (Welcome, error) { return Welcome{}, tt.err }
				})
				_, err := newDialer(t, way+g.addr).Dial(t.Context())
				r, ok := errors.AsType[*Refusal](err)
				if !ok || *r != tt.want {
					t.Errorf("Dial: %v", err)
				}
				if err := await(t, "Accept", g.errs); !errors.Is(err, tt.err) {
					t.Errorf("Accept: %v", err)
				}
			})
		}
	}
}

func TestAdmitEndsWithTheAgent(t *testing.T) {
	entered := make(chan *Tunnel, 1)
	g := startGateway(t, func(g *gateway) {
		g.admit = func(ctx context.Context, tun *Tunnel, _ Hello) (Welcome, error) {
			entered <- tun
			<-ctx.Done()
			return Welcome{}, nil // too late
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	dial := run(func() error { _, err := newDialer(t, g.addr).Dial(ctx); return err })
	tun := await(t, "admit", entered)
	cancel()
	if err := await(t, "Dial", dial); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v", err)
	}
	await(t, "Accept", g.errs)
	await(t, "Done", tun.Done())
	if _, ok := <-tun.Control().Messages(); ok {
		t.Error("a message from nowhere")
	}
}

func TestListenerCloseLetsStreamsFinish(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	go io.Copy(agent, agent)
	checkEcho(t, gw)
	if m := await(t, "the agent's notice", tun.Control().Messages()); m.Type != TypeDrain {
		t.Errorf("got %+v", m)
	}
	if _, err := tun.Dial(t.Context(), testHeader); !errors.Is(err, ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if isClosed(tun.Done()) || isClosed(l.Done()) {
		t.Error("the tunnel ended before its stream")
	}
	gw.Close()
	agent.Close()
	await(t, "the tunnel's end", tun.Done())
	await(t, "the tunnel's end", l.Done())
	if l.Err() != ErrClosed {
		t.Errorf("Err: %v", l.Err())
	}
}

func TestDialAfterTheEnd(t *testing.T) {
	tun, l := pair(t)
	l.CloseNow()
	await(t, "the end", tun.Done())
	if _, err := tun.Dial(t.Context(), testHeader); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if tun.Err() == nil || tun.Streams() != 0 {
		t.Errorf("Err %v, %d streams", tun.Err(), tun.Streams())
	}
	if err := tun.Probe(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Probe: %v", err)
	}
	tun.Close()
	tun.Close()
}

// Both sides notice that the link between them has become a hole.
func TestHalfOpen(t *testing.T) {
	for _, way := range []string{"", "wss://"} {
		t.Run("direct"+way, func(t *testing.T) {
			const dead = time.Second
			g := startGateway(t, func(g *gateway) { g.options.PingInterval, g.options.DeadAfter = dead/10, dead })
			f := startForwarder(t, g.addr)
			d := newDialer(t, way+f.addr)
			d.PingInterval, d.DeadAfter = dead/10, dead
			tun, l := connect(t, g, d)
			gw, agent := openStream(t, tun, l)
			defer gw.Close()
			defer agent.Close()
			if err := tun.Probe(t.Context()); err != nil {
				t.Fatalf("Probe of a live tunnel: %v", err)
			}
			f.goSilent()
			await(t, "the gateway to notice", tun.Done())
			await(t, "the agent to notice", l.Done())
			if tun.Err() != ErrDead || l.Err() != ErrDead {
				t.Errorf("gateway: %v, agent: %v", tun.Err(), l.Err())
			}
			if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, ErrDead) {
				t.Errorf("Read: %v", err)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	g := startGateway(t, nil)
	f := startForwarder(t, g.addr)
	tun, _ := connect(t, g, newDialer(t, f.addr))
	before := tun.LastRead()
	if err := tun.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !tun.LastRead().After(before) {
		t.Error("LastRead has not moved")
	}
	f.goSilent()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	eventually(t, "what was under way has arrived", func() bool {
		return errors.Is(tun.Probe(ctx), context.DeadlineExceeded)
	})
	if isClosed(tun.Done()) {
		t.Error("Probe has ended the tunnel")
	}
}

// A peer that sends signs of life but takes nothing is dead, too.
func TestPeerThatTakesNothing(t *testing.T) {
	g := startGateway(t, func(g *gateway) { g.options.DeadAfter = time.Second })
	a := rawAgent(t, g)
	tun := g.next(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // signs of life, past yamux, which reads no more either
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				a.conn.Conn.Write([]byte{0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}) // an empty window update
			}
		}
	})
	close(a.conn.deaf)
	for {
		c, err := tun.Dial(t.Context(), testHeader)
		if err != nil {
			break
		}
		wg.Go(func() {
			defer c.Close()
			c.Write(make([]byte, 1<<20))
		})
	}
	await(t, "the end", tun.Done())
	if tun.Err() != ErrDead {
		t.Errorf("Err: %v", tun.Err())
	}
	close(stop)
	wg.Wait()
}

// An agentConn is a connection that can be told to read no more.
type agentConn struct {
	net.Conn
	deaf chan struct{}
	end  chan struct{}
	once sync.Once
}

func (c *agentConn) Read(p []byte) (int, error) {
	select {
	case <-c.deaf:
		<-c.end
		return 0, io.EOF
	default:
		return c.Conn.Read(p)
	}
}

func (c *agentConn) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}

// A hostile agent is admitted and then does as it likes.
type hostileAgent struct {
	conn    *agentConn
	mux     *yamux.Session
	control *yamux.Stream
}

// rawConn is what a hostile agent starts from: a connection, and nothing said.
func rawConn(t *testing.T, g *gateway) (*agentConn, []byte) {
	t.Helper()
	c, err := tls.Dial("tcp", g.addr, &tls.Config{RootCAs: makeTLS().roots, NextProtos: []string{ALPN}})
	if err != nil {
		t.Fatal(err)
	}
	binding, err := exporterBinding(c)
	if err != nil {
		t.Fatal(err)
	}
	ac := &agentConn{Conn: c, deaf: make(chan struct{}), end: make(chan struct{})}
	t.Cleanup(func() { ac.Close() })
	return ac, binding
}

func rawMux(t *testing.T, c net.Conn) (*yamux.Session, *yamux.Stream) {
	t.Helper()
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive = false
	cfg.LogOutput = io.Discard
	mux, err := yamux.Client(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mux.Close() })
	control, err := mux.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	return mux, control
}

func rawAgent(t *testing.T, g *gateway) *hostileAgent {
	t.Helper()
	c, binding := rawConn(t, g)
	mux, control := rawMux(t, c)
	key := newKey(t)
	h := Hello{Version: 1, Task: "t", Token: "x", AgentKey: key.Public().(ed25519.PublicKey)}
	b, err := h.appendSigned(nil, key, binding)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := readReply(control); err != nil {
		t.Fatal(err)
	}
	return &hostileAgent{c, mux, control}
}

func TestHostileAgent(t *testing.T) {
	header := func(kind byte, flags uint16, id, length uint32) []byte {
		b := []byte{0, kind}
		b = binary.BigEndian.AppendUint16(b, flags)
		b = binary.BigEndian.AppendUint32(b, id)
		return binary.BigEndian.AppendUint32(b, length)
	}
	tests := map[string]struct {
		do   func(a *hostileAgent)
		want string
	}{
		"opens a stream":          {func(a *hostileAgent) { a.mux.OpenStream() }, "may not open"},
		"opens the gateway's":     {func(a *hostileAgent) { a.conn.Write(header(1, flagSYN, 2, 0)) }, "may not open"},
		"pings by yamux":          {func(a *hostileAgent) { a.conn.Write(header(kindPing, flagSYN, 0, 1)) }, "yamux ping"},
		"speaks another yamux":    {func(a *hostileAgent) { a.conn.Write(bytes.Repeat([]byte{9}, 24)) }, errProtocol.Error()},
		"ends the control stream": {func(a *hostileAgent) { a.control.Close() }, "control stream"},
		"sends a huge message":    {func(a *hostileAgent) { a.control.Write([]byte{0, 1, 0, 0}) }, "65536 bytes"},
		"sends no JSON":           {func(a *hostileAgent) { a.control.Write([]byte{0, 0, 0, 1, '{'}) }, "decode frame"},
		"exceeds the window":      {func(a *hostileAgent) { a.conn.Write(header(kindData, 0, 1, 1<<30)) }, errProtocol.Error()},
		"hangs up":                {func(a *hostileAgent) { a.conn.Close() }, "closed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, nil)
			a := rawAgent(t, g)
			tun := g.next(t)
			tt.do(a)
			await(t, "the end", tun.Done())
			if err := tun.Err(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Err: %v, want %q", err, tt.want)
			}
		})
	}
}

// An agent that takes no streams uses up the limit and nothing else.
func TestAgentThatNeverAccepts(t *testing.T) {
	g := startGateway(t, func(g *gateway) { g.options.MaxStreams = 10 })
	rawAgent(t, g)
	tun := g.next(t)
	var err error
	opened := 0
	for ; err == nil; opened++ {
		var c net.Conn
		if c, err = tun.Dial(t.Context(), testHeader); err == nil {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Fatal("an answer from nowhere")
			}
			c.Close()
		}
	}
	if !errors.Is(err, ErrTooManyStreams) || opened != 11 {
		t.Errorf("Dial %d: %v", opened, err)
	}
	if err := tun.Control().Send(t.Context(), Message{Type: TypeState}); err != nil {
		t.Errorf("Send: %v", err)
	}
}

// Closes for streams that were never there fill no memory.
func TestAgentThatClosesAtRandom(t *testing.T) {
	g := startGateway(t, nil)
	a := rawAgent(t, g)
	tun := g.next(t)
	var b []byte
	for id := range uint32(10000) {
		b = append(b, 0, 1, 0, flagFIN)
		b = binary.BigEndian.AppendUint32(b, 1000+id)
		b = append(b, 0, 0, 0, 0)
	}
	if _, err := a.conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(a.control, Message{Type: TypeState}, limitMessage); err != nil {
		t.Fatal(err)
	}
	await(t, "a message", tun.Control().Messages())
	tun.session.mu.Lock()
	defer tun.session.mu.Unlock()
	if n := len(tun.session.early); n > defaultMaxStreams {
		t.Errorf("%d remembered", n)
	}
}

func TestStrangers(t *testing.T) {
	frame := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	tests := map[string]struct {
		do   func(t *testing.T, c *agentConn, binding []byte)
		want string
	}{
		"silence":         {func(*testing.T, *agentConn, []byte) {}, "deadline"},
		"no yamux":        {func(_ *testing.T, c *agentConn, _ []byte) { c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }, errProtocol.Error()},
		"a silent stream": {func(t *testing.T, c *agentConn, _ []byte) { rawMux(t, c) }, "deadline"},
		"a huge hello": {func(t *testing.T, c *agentConn, _ []byte) {
			_, s := rawMux(t, c)
			s.Write(frame(1 << 30))
		}, "are allowed"},
		"an empty hello": {func(t *testing.T, c *agentConn, _ []byte) {
			_, s := rawMux(t, c)
			s.Write(append(frame(1), '['))
		}, "decode frame"},
		"half a hello": {func(t *testing.T, c *agentConn, _ []byte) {
			_, s := rawMux(t, c)
			s.Write(append(frame(100), '{'))
		}, "deadline"},
		"two streams": {func(t *testing.T, c *agentConn, _ []byte) {
			mux, _ := rawMux(t, c)
			mux.OpenStream()
		}, "may not open"},
		"another connection's signature": {func(t *testing.T, c *agentConn, _ []byte) {
			_, s := rawMux(t, c)
			key := newKey(t)
			h := Hello{Version: 1, Task: "t", Token: "x", AgentKey: key.Public().(ed25519.PublicKey)}
			b, _ := h.appendSigned(nil, key, []byte("tls-exporter: of another"))
			s.Write(b)
			if _, err := readReply(s); err == nil || !strings.Contains(err.Error(), CodeBadToken) {
				t.Errorf("answer: %v", err)
			}
			c.Close()
		}, CodeBadToken},
		"a version to come": {func(t *testing.T, c *agentConn, _ []byte) {
			_, s := rawMux(t, c)
			writeFrame(s, map[string]int{"version": 2}, limitHello)
			if _, err := readReply(s); err == nil || !strings.Contains(err.Error(), CodeVersion) {
				t.Errorf("answer: %v", err)
			}
			c.Close()
		}, CodeVersion},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, func(g *gateway) {
				g.options.HelloTimeout = hang
				if tt.want == "deadline" {
					g.options.HelloTimeout = 200 * time.Millisecond
				}
				g.admit = func(context.Context, *Tunnel, Hello) (Welcome, error) {
					t.Error("admitted")
					return Welcome{}, nil
				}
			})
			c, binding := rawConn(t, g)
			tt.do(t, c, binding)
			if err := await(t, "Accept", g.errs); !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Accept: %v, want %q", err, tt.want)
			}
		})
	}
}

// Somebody whose token is still being looked at cannot have much buffered.
func TestFloodBeforeTheWelcome(t *testing.T) {
	g := startGateway(t, func(g *gateway) {
		g.admit = func(ctx context.Context, _ *Tunnel, _ Hello) (Welcome, error) {
			<-ctx.Done()
			return Welcome{}, context.Cause(ctx)
		}
	})
	c, binding := rawConn(t, g)
	_, control := rawMux(t, c)
	key := newKey(t)
	h := Hello{Version: 1, Task: "t", Token: "x", AgentKey: key.Public().(ed25519.PublicKey)}
	b, err := h.appendSigned(nil, key, binding)
	if err != nil {
		t.Fatal(err)
	}
	go control.Write(append(b, make([]byte, strangerBytes)...))
	if err := await(t, "Accept", g.errs); !strings.Contains(err.Error(), "before the welcome") {
		t.Errorf("Accept: %v", err)
	}
}

func TestAcceptNeedsTLS13OrABinding(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	if _, err := Accept(t.Context(), a, nil, nil); err == nil {
		t.Error("a plain connection was taken")
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection was left open: %v", err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{makeTLS().cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed := run(func() error {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: makeTLS().roots, MaxVersion: tls.VersionTLS12})
		if err == nil {
			c.Close()
		}
		return err
	})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(t.Context(), c, nil, nil); err == nil || !strings.Contains(err.Error(), "TLS 1.3") {
		t.Errorf("TLS 1.2: %v", err)
	}
	await(t, "the client", dialed)
}

// What ended the connection must not look to an accept loop like something
// that passes.
func TestAcceptErrorHidesTheCause(t *testing.T) {
	_, l := pair(t)
	l.session.fail(fmt.Errorf("read: %w", syscall.ECONNABORTED))
	_, err := l.Accept()
	if !errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNABORTED) || !strings.Contains(err.Error(), syscall.ECONNABORTED.Error()) {
		t.Errorf("Accept: %v", err)
	}
	if !errors.Is(l.Err(), syscall.ECONNABORTED) {
		t.Errorf("Err: %v", l.Err())
	}
}
