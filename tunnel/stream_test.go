package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

func TestStreamIsANetConn(t *testing.T) {
	for _, way := range []string{"direct", "websocket"} {
		for _, first := range []string{"gateway", "agent"} {
			t.Run(way+"/"+first, func(t *testing.T) {
				g := startGateway(t, nil)
				d := newDialer(t, g.addr)
				if way == "websocket" {
					d.Gateway = "wss://" + g.addr
				}
				tun, l := connect(t, g, d)
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					gw, agent := openStream(t, tun, l)
					stop = func() { gw.Close(); agent.Close() }
					if first == "agent" {
						return agent, gw, stop, nil
					}
					return gw, agent, stop, nil
				})
				eventually(t, "all streams are gone", func() bool {
					return tun.Streams() == 0 && l.session.count() == 0 && tun.session.mux.NumStreams() == 1 && l.session.mux.NumStreams() == 1
				})
			})
		}
	}
}

func randomData(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(p)
	return p
}

// What was written before Close arrives though nobody reads until both
// sides have let go of the stream.
func TestCloseFreesBothSidesAndLosesNothing(t *testing.T) {
	tun, l := pair(t)
	for _, by := range []string{"gateway", "agent"} {
		t.Run(by, func(t *testing.T) {
			closer, reader := openStream(t, tun, l)
			if by == "agent" {
				closer, reader = reader, closer
			}
			want := randomData(200 << 10) // within the window at first: nobody reads
			if _, err := closer.Write(want); err != nil {
				t.Fatal(err)
			}
			closer.Close()
			eventually(t, "both yamuxes have freed the stream", func() bool {
				return tun.session.mux.NumStreams() == 1 && l.session.mux.NumStreams() == 1
			})
			if n, err := reader.Write([]byte("too late")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("Write to a closed stream: %d, %v", n, err)
			}
			got, err := io.ReadAll(reader)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v; want %d, EOF", len(got), err, len(want))
			}
			reader.Close()
			eventually(t, "the stream is not counted", func() bool { return tun.Streams() == 0 && l.session.count() == 0 })
		})
	}
}

// A bulk sender that closes right away, against a reader that keeps up.
func TestCloseAfterBulk(t *testing.T) {
	tun, l := pair(t)
	want := randomData(16 << 20)
	gw, agent := openStream(t, tun, l)
	sent := run(func() error {
		_, err := agent.Write(want)
		return errors.Join(err, agent.Close())
	})
	got, err := io.ReadAll(gw)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d, EOF", len(got), err, len(want))
	}
	if err := await(t, "the sender", sent); err != nil {
		t.Error(err)
	}
	gw.Close()
	eventually(t, "all streams are gone", func() bool { return tun.Streams() == 0 && l.session.count() == 0 })
}

func TestCloseWakesReaderAndWriter(t *testing.T) {
	tun, l := pair(t)
	for _, by := range []string{"this side", "the other side"} {
		t.Run(by, func(t *testing.T) {
			s, peer := openStream(t, tun, l)
			defer s.Close()
			defer peer.Close()
			read := run(func() error { _, err := s.Read(make([]byte, 1)); return err })
			write := run(func() error { _, err := s.Write(make([]byte, 2*streamWindow)); return err })
			if _, err := peer.Read(make([]byte, 1)); err != nil { // the writer has begun
				t.Fatal(err)
			}
			wantRead, wantWrite := net.ErrClosed, net.ErrClosed
			if by == "this side" {
				s.Close()
			} else {
				peer.Close()
				wantRead, wantWrite = io.EOF, io.ErrClosedPipe
			}
			if err := await(t, "Read", read); !errors.Is(err, wantRead) {
				t.Errorf("Read: %v, want %v", err, wantRead)
			}
			if err := await(t, "Write", write); !errors.Is(err, wantWrite) {
				t.Errorf("Write: %v, want %v", err, wantWrite)
			}
		})
	}
}

func TestReadAfterTunnelIsLost(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	if _, err := gw.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(agent, got); err != nil {
		t.Fatal(err)
	}
	tun.Close()
	if _, err := agent.Read(got); err == io.EOF || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read on the other side: %v", err)
	}
	if _, err := agent.Write(got); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Write on the other side: %v", err)
	}
	if _, err := gw.Read(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read on this side: %v", err)
	}
	gw.Close()
	agent.Close()
}

// While the connection takes no bytes, whatever has a context or must not
// block does as it should.
func TestJammedConnection(t *testing.T) {
	g := startGateway(t, nil)
	f := startForwarder(t, g.addr)
	tun, l := connect(t, g, newDialer(t, f.addr))
	gw, agent := openStream(t, tun, l)
	read := run(func() error { _, err := gw.Read(make([]byte, 1)); return err })
	f.setJam(true)
	var writers sync.WaitGroup
	for range 100 { // more than the sockets' buffers hold, by 256 KiB each
		writers.Go(func() {
			s, err := tun.Dial(t.Context(), testHeader)
			if err != nil {
				return
			}
			defer s.Close()
			s.Write(make([]byte, streamWindow))
		})
	}
	eventually(t, "the connection is jammed", func() bool { return tun.session.link.stuck() > 100*time.Millisecond })

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	dial := run(func() error { _, err := tun.Dial(ctx, testHeader); return err })
	if err := await(t, "Dial", dial); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial: %v", err)
	}
	send := run(func() error { return tun.Control().Send(ctx, Message{Type: TypeState}) })
	if err := await(t, "Send", send); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v", err)
	}
	if err := await(t, "Close", run(gw.Close)); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := await(t, "Read", read); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}

	f.setJam(false)
	if _, err := agent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read of a stream closed in the jam: %v", err)
	}
	agent.Close()
	if err := await(t, "Close", run(tun.Close)); err != nil {
		t.Error(err)
	}
	writers.Wait()
}

func TestStreamTellsTheGuest(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	defer gw.Close()
	defer agent.Close()
	if h := agent.Header(); h.Mode != testHeader.Mode || h.Remote != testHeader.Remote || !bytes.Equal(h.Certificate, testHeader.Certificate) {
		t.Errorf("header is %+v", h)
	}
	if a := agent.RemoteAddr().String(); a != testHeader.Remote {
		t.Errorf("remote address is %s", a)
	}
	if w := agent.Welcome(); w.Address != "gateway.test:22" || w.Now.IsZero() {
		t.Errorf("welcome is %+v", w)
	}
	if gw.RemoteAddr().String() != tun.RemoteAddr().String() {
		t.Errorf("remote address at the gateway is %s", gw.RemoteAddr())
	}
}

func TestDeadlineInThePastAndGone(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	defer agent.Close()
	gw.SetDeadline(time.Unix(1, 0))
	if _, err := gw.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	gw.SetDeadline(time.Time{})
	go io.Copy(agent, agent)
	checkEcho(t, gw)
	gw.Close()
	if err := gw.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline after Close: %v", err)
	}
}

// The watchdog comes by while frames are arriving, which takes the same
// locks in another order.
func TestWatchdogDuringBulk(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	sent := run(func() error {
		_, err := agent.Write(make([]byte, 32<<20))
		return errors.Join(err, agent.Close())
	})
	received := run(func() int64 { n, _ := io.Copy(io.Discard, gw); return n })
	for {
		select {
		case n := <-received:
			if err := <-sent; n != 32<<20 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			gw.Close()
			return
		case <-time.After(time.Millisecond):
			tun.session.watch()
			l.session.watch()
		}
	}
}

// A stream that had much to hold once does not keep the memory for ever.
func TestIdleStreamShrinks(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	defer gw.Close()
	defer agent.Close()
	go agent.Write(randomData(streamWindow))
	if _, err := io.ReadFull(gw, make([]byte, streamWindow)); err != nil {
		t.Fatal(err)
	}
	tun.session.shrinkIdle()
	if gw.active.Load() {
		t.Error("the stream counts as active for ever")
	}
	tun.session.shrinkIdle()
	go io.Copy(agent, agent)
	checkEcho(t, gw)
}
