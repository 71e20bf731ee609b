package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// openEndToEnd opens a stream that has a half-close.
func openEndToEnd(t *testing.T, tun *Tunnel, l *Listener) (gw, agent *Stream) {
	t.Helper()
	c, err := tun.Dial(t.Context(), StreamHeader{Mode: ModeEndToEnd, Remote: "192.0.2.1:1234"})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Stream), accepted.(*Stream)
}

// freed waits until nothing of any stream is left on either side.
func freed(t *testing.T, tun *Tunnel, l *Listener) {
	t.Helper()
	eventually(t, "both sides have let go of the stream", func() bool {
		return tun.Streams() == 0 && l.session.count() == 0 && tun.session.mux.NumStreams() == 1 && l.session.mux.NumStreams() == 1
	})
}

// The answer to what was sent ahead of a half-close arrives whole, although it
// is more than a window holds.
func TestHalfClose(t *testing.T) {
	tun, l := pair(t)
	for _, by := range []string{"gateway", "agent"} {
		t.Run(by, func(t *testing.T) {
			asks, answers := openEndToEnd(t, tun, l)
			if by == "agent" {
				asks, answers = answers, asks
			}
			question, want := randomData(300<<10), randomData(streamWindow+1<<20)
			asked := run(func() error {
				if _, err := asks.Write(question); err != nil {
					return err
				}
				return asks.CloseWrite()
			})
			if got, err := io.ReadAll(answers); err != nil || !bytes.Equal(got, question) {
				t.Fatalf("read %d bytes, %v; want %d, EOF", len(got), err, len(question))
			}
			if err := await(t, "the question to be sent", asked); err != nil {
				t.Fatal(err)
			}
			if _, err := asks.Write([]byte("more")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("Write after CloseWrite: %v", err)
			}
			answered := run(func() error {
				_, err := answers.Write(want)
				return errors.Join(err, answers.Close())
			})
			if got, err := io.ReadAll(asks); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v; want %d, EOF", len(got), err, len(want))
			}
			if err := await(t, "the answer to be sent", answered); err != nil {
				t.Error(err)
			}
			asks.Close()
			freed(t, tun, l)
		})
	}
}

// A half-close that arrives with the header is one, too.
func TestHalfCloseBehindTheHeader(t *testing.T) {
	tun, l := pair(t)
	c, err := tun.Dial(t.Context(), StreamHeader{Mode: ModeEndToEnd})
	if err != nil {
		t.Fatal(err)
	}
	gw := c.(*Stream)
	gw.CloseWrite()
	agent, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(agent); err != nil || len(got) > 0 {
		t.Fatalf("read %q, %v; want EOF", got, err)
	}
	if _, err := agent.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	agent.Close()
	if got, err := io.ReadAll(gw); err != nil || string(got) != "answer" {
		t.Errorf("read %q, %v", got, err)
	}
	gw.Close()
	freed(t, tun, l)
}

// Both sides close at a time, or one half-closes and hears no more.
func TestHalfCloseThenClose(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openEndToEnd(t, tun, l)
	gw.CloseWrite()
	agent.CloseWrite()
	for _, st := range []*Stream{gw, agent} {
		if _, err := io.ReadAll(st); err != nil {
			t.Error(err)
		}
		st.Close()
		if err := st.CloseWrite(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("CloseWrite after Close: %v", err)
		}
	}
	freed(t, tun, l)

	gw, agent = openEndToEnd(t, tun, l)
	gw.CloseWrite()
	gw.Close()
	if _, err := io.ReadAll(agent); err != nil {
		t.Error(err)
	}
	agent.Close()
	freed(t, tun, l)
}

// A stream whose other side never closes gives its slot back after a while.
func TestHalfCloseOfDeadStream(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openEndToEnd(t, tun, l)
	gw.CloseWrite()
	if _, err := io.ReadAll(agent); err != nil {
		t.Fatal(err)
	}
	lingering := func() bool {
		tun.session.mu.Lock()
		defer tun.session.mu.Unlock()
		return gw.linger != nil
	}
	eventually(t, "the time in which the other side must close runs", lingering)
	tun.session.expire(gw)
	if tun.Streams() != 1 {
		t.Error("the slot of a stream was given away that its user had not closed")
	}
	gw.Close()
	if tun.Streams() != 0 {
		t.Error("the slot was not given back")
	}
}

func TestSplicedStreamHasNoHalfClose(t *testing.T) {
	tun, l := pair(t)
	gw, agent := openStream(t, tun, l)
	for _, st := range []*Stream{gw, agent} {
		if err := st.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("CloseWrite: %v", err)
		}
	}
	checkRoundTrip(t, gw, agent)
	gw.Close()
	agent.Close()
	freed(t, tun, l)
}

// checkRoundTrip makes sure that bytes still pass.
func checkRoundTrip(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := c[0].Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4)
		if _, err := io.ReadFull(c[1], p); err != nil || string(p) != "ping" {
			t.Fatalf("%q, %v", p, err)
		}
	}
}
