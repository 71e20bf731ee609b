package splice

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/internal/sshwire"
)

// isAlone reports whether the test is alone in its process. If not, it has been
// run in one by now, and there is nothing left to do.
func isAlone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneVariable) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), aloneVariable+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

const aloneVariable = "SPLICE_TEST_ALONE"

// TestLeakOfXCrypto has a process of its own, which may end with the goroutines
// that x/crypto leaves behind.
func TestLeakOfXCrypto(t *testing.T) {
	if !isAlone(t) {
		return
	}
	before := goleak.IgnoreCurrent()
	var wires Wires
	const tries = 6
	stuck := 0
	for i := range tries {
		stuck += breakProtocol(t, &wires, Side(i%2))
	}
	t.Logf("%d of %d connections hang", stuck, tries)
	if got := wires.Stuck(); got != int64(stuck) {
		t.Errorf("Wires counts %d stuck connections, want %d", got, stuck)
	}
	breakHandshake(t, &wires)
	t.Logf("%d more hang that never signed in", wires.Stuck()-int64(stuck))
	if stuck == 0 {
		t.Error("x/crypto does not leak any more: remove this test, and what the package comment says")
	}
	// Nothing of ours is among what hangs, but for the test's own waiting.
	if err := goleak.Find(before,
		goleak.IgnoreAnyFunction("github.com/stagedoor/stagedoor/gateway/splice.endOf"),
		goleak.IgnoreTopFunction("golang.org/x/crypto/ssh.(*handshakeTransport).readLoop"),
		goleak.IgnoreTopFunction("golang.org/x/crypto/ssh.(*handshakeTransport).kexLoop"),
		goleak.IgnoreTopFunction("golang.org/x/crypto/ssh.(*handshakeTransport).Close"),
	); err != nil {
		t.Error(err)
	}
}

// impatient does not wait for a peer that does not answer CLOSE.
var impatient = shortened(func(l *limits) { l.guestEnd, l.hostEnd = 50*time.Millisecond, 50*time.Millisecond })

func endOf(c Conn, ended chan<- struct{}) {
	c.Wait()
	close(ended)
}

// breakProtocol has one side of a join with open channels break the protocol
// with messages behind. It returns 1 if x/crypto hangs then.
func breakProtocol(t *testing.T, wires *Wires, breaker Side) int {
	t.Helper()
	var r wireRig
	var joined [2]Conn
	var ended [2]chan struct{}
	r.done = make(chan struct{})
	for _, side := range []Side{Guest, Host} {
		var p *peer
		p, joined[side] = connectPeerThrough(t, side == Guest, wires.Wrap)
		if side == Guest {
			r.guest = p
		} else {
			r.host = p
		}
		ended[side] = make(chan struct{})
		go endOf(joined[side], ended[side])
	}
	go func() {
		defer close(r.done)
		joinWith(joined[Guest], joined[Host], nil, impatient)
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
	await(t, ended[breaker.other()], "the other connection to end")
	select {
	case <-ended[breaker]:
		return 0
	case <-time.After(200 * time.Millisecond):
		return 1
	}
}

// breakHandshake does the like before signing in, which a stranger can.
func breakHandshake(t *testing.T, wires *Wires) {
	t.Helper()
	far, near := socketPair(t)
	defer far.Close()
	served := make(chan error, 1)
	go func() {
		_, err := serve(wires.Wrap(near))
		served <- err
	}()
	p, err := sshwire.Client(far)
	if err != nil {
		t.Fatal(err)
	}
	messages := [][]byte{sshwire.Service("nonsense")}
	for range 100 {
		messages = append(messages, global("more", false, ""))
	}
	p.Send(messages...)
	if err := await(t, served, "the handshake to fail"); err == nil {
		t.Error("the handshake did not fail")
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
