package splice

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestLeakOfXCrypto runs itself in a process of its own, which may end with the
// goroutines that x/crypto leaves behind.
func TestLeakOfXCrypto(t *testing.T) {
	if os.Getenv("SPLICE_LEAKS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLeakOfXCrypto$", "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), "SPLICE_LEAKS=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestLeakOfXCrypto") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	before := goleak.IgnoreCurrent()
	var wires Wires
	stuck := 0
	for i := range 20 {
		stuck += breakProtocol(t, &wires, Side(i%2))
	}
	t.Logf("%d of 20 connections hang", stuck)
	if got := wires.Stuck(); got != int64(stuck) {
		t.Errorf("Wires counts %d stuck connections, want %d", got, stuck)
	}
	if stuck == 0 {
		t.Error("x/crypto does not leak any more: remove Wires, and what the package comment says")
	}
	// Nothing of ours is among them.
	if err := goleak.Find(before,
		goleak.IgnoreTopFunction("golang.org/x/crypto/ssh.(*handshakeTransport).readLoop"),
		goleak.IgnoreTopFunction("golang.org/x/crypto/ssh.(*handshakeTransport).kexLoop"),
		goleak.IgnoreTopFunction("golang.org/x/crypto/ssh.(*handshakeTransport).Close"),
	); err != nil {
		t.Error(err)
	}
}

// breakProtocol has one side of a join with open channels break the protocol
// with messages behind. It returns 1 if x/crypto hangs then.
func breakProtocol(t *testing.T, wires *Wires, breaker Side) int {
	t.Helper()
	var r wireRig
	var joined [2]Conn
	var hung [2]chan struct{}
	r.done = make(chan struct{})
	for _, side := range []Side{Guest, Host} {
		var p *peer
		p, joined[side] = connectPeerThrough(t, side == Guest, wires.Wrap)
		if side == Guest {
			r.guest = p
		} else {
			r.host = p
		}
		hung[side] = make(chan struct{})
		go func(c Conn) {
			c.Wait()
			close(hung[side])
		}(joined[side])
	}
	go func() {
		defer close(r.done)
		Join(joined[Guest], joined[Host], nil)
	}()
	guestSide, hostSide := r.openWire(t)
	p, id := r.guest, guestSide
	if breaker == Host {
		p, id = r.host, hostSide
	}
	messages := [][]byte{channelMessage(msgEOF, 12345)} // there is no such channel
	for range 100 {
		messages = append(messages, dataMessage(id, []byte("more")))
	}
	p.send(messages...)
	await(t, r.done, "Join to return")
	r.guest.conn.Close()
	r.host.conn.Close()
	await(t, hung[breaker.other()], "the other connection to end")
	select {
	case <-hung[breaker]:
		return 0
	case <-time.After(200 * time.Millisecond):
		return 1
	}
}

// TestWires: connections that end well are not counted, whoever ends them, and
// neither are those that never come to a handshake.
func TestWires(t *testing.T) {
	var wires Wires
	for _, end := range []func(p *peer, c Conn){
		func(p *peer, c Conn) { c.Close() },
		func(p *peer, c Conn) { p.conn.Close() },
		func(p *peer, c Conn) { p.conn.Close(); c.Close(); c.Close() },
	} {
		p, c := connectPeerThrough(t, true, wires.Wrap)
		end(p, c)
		c.Wait()
		for range c.Channels {
		}
		p.conn.Close()
	}
	client, server := socketPair(t)
	client.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	client.Close()
	if _, err := serve(wires.Wrap(server)); err == nil {
		t.Error("HTTP was taken for SSH")
	}
	waitFor(t, "no connection to be counted", func() bool { return wires.Stuck() == 0 })
}
