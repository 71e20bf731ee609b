package tunnel

import (
	"context"
	"io"
	"testing"
)

// benchPair returns both ends of a stream in a tunnel, over TLS or a WebSocket.
func benchPair(b *testing.B, scheme string) (tun *Tunnel, l *Listener, gw, agent *Stream) {
	b.Helper()
	g := startGateway(b, nil)
	tun, l = connect(b, g, newDialer(b, scheme+g.addr))
	gw, agent = openStream(b, tun, l)
	return tun, l, gw, agent
}

func benchBulk(b *testing.B, from, to *Stream) {
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	received := run(func() error {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, 64<<10))
		return err
	})
	for b.Loop() {
		if _, err := from.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	from.Close()
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	to.Close()
}

func BenchmarkBulkToGateway(b *testing.B) {
	_, _, gw, agent := benchPair(b, "")
	benchBulk(b, agent, gw)
}

func BenchmarkBulkToAgent(b *testing.B) {
	_, _, gw, agent := benchPair(b, "")
	benchBulk(b, gw, agent)
}

func BenchmarkBulkToGatewayWebSocket(b *testing.B) {
	_, _, gw, agent := benchPair(b, "wss://")
	benchBulk(b, agent, gw)
}

// BenchmarkPingPong is a keystroke and its echo.
func BenchmarkPingPong(b *testing.B) {
	_, _, gw, agent := benchPair(b, "")
	go io.Copy(agent, struct{ io.Reader }{agent})
	key := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := gw.Write(key); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(gw, key); err != nil {
			b.Fatal(err)
		}
	}
	gw.Close()
	agent.Close()
}

// BenchmarkDial is a stream's whole life.
func BenchmarkDial(b *testing.B) {
	tun, l, gw, agent := benchPair(b, "")
	gw.Close()
	agent.Close()
	b.ReportAllocs()
	for b.Loop() {
		c, err := tun.Dial(context.Background(), testHeader)
		if err != nil {
			b.Fatal(err)
		}
		a, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			b.Fatal(err)
		}
		a.Close()
	}
}
