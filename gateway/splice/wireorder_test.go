package splice

import (
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// wireRuns is how often each order is looked at: a race shows itself seldom.
const wireRuns = 100

// A wireRig joins two peers that see packets.
type wireRig struct {
	guest, host *peer
	done        chan struct{}
}

func newWireRig(t *testing.T, h *Hooks, l limits) *wireRig {
	t.Helper()
	return newWireRigThrough(t, h, l, func(c net.Conn) net.Conn { return c })
}

// newWireRigThrough has the gateway use what wrap makes of its socket to the guest.
func newWireRigThrough(t *testing.T, h *Hooks, l limits, wrap func(net.Conn) net.Conn) *wireRig {
	t.Helper()
	r := &wireRig{done: make(chan struct{})}
	guest, joinedGuest := connectPeerThrough(t, true, wrap)
	host, joinedHost := connectPeer(t, false)
	r.guest, r.host = guest, host
	go func() {
		defer close(r.done)
		joinWith(joinedGuest, joinedHost, h, l)
	}()
	return r
}

func (r *wireRig) close(t *testing.T) {
	t.Helper()
	r.guest.conn.Close()
	r.host.conn.Close()
	await(t, r.done, "Join to return")
}

// connectPeer connects a peer to x/crypto, and returns x/crypto's end.
func connectPeer(t *testing.T, isGuest bool) (*peer, Conn) {
	t.Helper()
	return connectPeerThrough(t, isGuest, func(c net.Conn) net.Conn { return c })
}

// connectPeerThrough does so over what wrap makes of the gateway's socket.
func connectPeerThrough(t *testing.T, isGuest bool, wrap func(net.Conn) net.Conn) (*peer, Conn) {
	t.Helper()
	far, near := socketPair(t)
	type result struct {
		conn Conn
		err  error
	}
	c := make(chan result, 1)
	go func() {
		handshake := dial
		if isGuest {
			handshake = serve
		}
		conn, err := handshake(wrap(near))
		c <- result{conn, err}
	}()
	p, err := newPeer(t, far, isGuest)
	if err != nil {
		t.Fatal(err)
	}
	got := await(t, c, "the handshake")
	if got.err != nil {
		t.Fatal(got.err)
	}
	return p, got.conn
}

// record returns the names of messages, runs of the same one as one, until end.
func record(p *peer, end string) []string {
	p.t.Helper()
	var all []string
	for {
		name := describe(p.next())
		if len(all) == 0 || all[len(all)-1] != name {
			all = append(all, name)
		}
		if name == end {
			return all
		}
	}
}

func wantRecord(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("order on the wire: %s; want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

// openWire opens a session from guest to host. Both call it channel 0.
func (r *wireRig) openWire(t *testing.T) (guestSide, hostSide uint32) {
	t.Helper()
	r.guest.send(openMessage("session", 0))
	hostSide = openedBy(t, r.host.next())
	r.host.send(confirmMessage(hostSide, 0))
	return openedBy(t, r.guest.next()), hostSide
}

// closeWire ends what openWire opened, for the next to take its place.
func (r *wireRig) closeWire(t *testing.T, guestSide, hostSide uint32) {
	t.Helper()
	r.guest.send(channelMessage(msgClose, guestSide))
	r.host.send(channelMessage(msgClose, hostSide))
	record(r.guest, "CLOSE")
	record(r.host, "CLOSE")
}

// TestWireOrderToGuest has a host send all in one burst, exit-status in the
// middle of the output as sshd does.
func TestWireOrderToGuest(t *testing.T) {
	out := func(id uint32) []byte { return dataMessage(id, []byte(strings.Repeat("x", 30000))) }
	r := newWireRig(t, nil, defaultLimits)
	defer r.close(t)
	for range wireRuns {
		guestSide, hostSide := r.openWire(t)
		r.guest.send(requestMessage(guestSide, "exec", true, string(ssh.Marshal(struct{ C string }{"x"}))))
		wantRecord(t, record(r.host, "exec"), "exec")
		r.host.send(channelMessage(msgSuccess, hostSide), out(hostSide), out(hostSide),
			requestMessage(hostSide, "exit-status", false, "\x00\x00\x00\x07"),
			out(hostSide), channelMessage(msgEOF, hostSide), channelMessage(msgClose, hostSide))
		wantRecord(t, record(r.guest, "CLOSE"), "success", "data", "exit-status", "EOF", "CLOSE")
		wantRecord(t, record(r.host, "CLOSE"), "CLOSE")
		r.guest.send(channelMessage(msgClose, guestSide))
	}
}

// TestWireOrderToHost has a guest send all in one burst, as OpenSSH does, and a
// host that takes its time to answer.
func TestWireOrderToHost(t *testing.T) {
	r := newWireRig(t, nil, defaultLimits)
	defer r.close(t)
	for _, kind := range []string{"exec", "attach@stagedoor"} {
		for range wireRuns {
			guestSide, hostSide := r.openWire(t)
			r.guest.send(requestMessage(guestSide, "env", false, "env"),
				requestMessage(guestSide, "pty-req", true, "pty"),
				requestMessage(guestSide, kind, true, "command"),
				dataMessage(guestSide, []byte("stdin")),
				channelMessage(msgEOF, guestSide))
			wantRecord(t, record(r.host, "pty-req"), "env", "pty-req")
			r.host.send(channelMessage(msgSuccess, hostSide))
			wantRecord(t, record(r.host, kind), kind)
			// What would come too early comes before the answer to this: it
			// has to go through both connections twice.
			r.host.send(global("ping@stagedoor", true, ""))
			wantRecord(t, record(r.guest, "ping@stagedoor"), "success", "ping@stagedoor")
			r.guest.send([]byte{msgGlobalFailure})
			wantRecord(t, record(r.host, "global failure"), "global failure")
			r.host.send(channelMessage(msgSuccess, hostSide))
			wantRecord(t, record(r.host, "EOF"), "data", "EOF")
			wantRecord(t, record(r.guest, "success"), "success")
			r.guest.send(channelMessage(msgClose, guestSide))
			wantRecord(t, record(r.host, "CLOSE"), "CLOSE")
			wantRecord(t, record(r.guest, "CLOSE"), "CLOSE")
			r.host.send(channelMessage(msgClose, hostSide))
		}
	}
}

// TestWireOrderOfEOF: a host's EOF reaches the guest of a session no sooner
// than the exit status, that of any other channel at once.
func TestWireOrderOfEOF(t *testing.T) {
	r := newWireRig(t, nil, defaultLimits)
	defer r.close(t)
	for range wireRuns {
		guestSide, hostSide := r.openWire(t)
		r.host.send(channelMessage(msgEOF, hostSide), global("ping@stagedoor", true, ""))
		wantRecord(t, record(r.guest, "ping@stagedoor"), "ping@stagedoor")
		r.guest.send([]byte{msgGlobalFailure})
		wantRecord(t, record(r.host, "global failure"), "global failure")
		r.host.send(requestMessage(hostSide, "exit-status", false, "\x00\x00\x00\x07"))
		wantRecord(t, record(r.guest, "EOF"), "exit-status", "EOF")
		r.closeWire(t, guestSide, hostSide)
	}
}

// TestWireOrderOfSessions: no-more-sessions@openssh.com comes right behind the
// last session, and sshd disconnects whoever lets it come first.
func TestWireOrderOfSessions(t *testing.T) {
	for range wireRuns {
		r := newWireRig(t, nil, defaultLimits)
		r.guest.send(openMessage("session", 0), openMessage("session", 1),
			global("no-more-sessions@openssh.com", false, ""))
		for range 2 {
			b := r.host.next()
			if describe(b) != "open" {
				t.Fatalf("%s before the sessions", describe(b))
			}
			r.host.send(confirmMessage(openedBy(t, b), openedBy(t, b)))
		}
		wantRecord(t, record(r.host, "no-more-sessions@openssh.com"), "no-more-sessions@openssh.com")
		r.close(t)
	}
}

// TestWireOrderOfForwards: a guest knows the port that a channel comes from only
// when it has the reply to tcpip-forward.
func TestWireOrderOfForwards(t *testing.T) {
	for range wireRuns {
		r := newWireRig(t, nil, defaultLimits)
		r.guest.send(global("tcpip-forward", true, "address and port 0"))
		wantRecord(t, record(r.host, "tcpip-forward"), "tcpip-forward")
		r.host.send([]byte{msgGlobalSuccess, 0, 0, 0x12, 0x34}, openMessage("forwarded-tcpip", 0))
		reply := r.guest.next()
		if string(reply) != "\x51\x00\x00\x12\x34" {
			t.Fatalf("%s %x instead of the reply", describe(reply), reply)
		}
		wantRecord(t, record(r.guest, "open"), "open")
		r.close(t)
	}
}
