package splice

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// patience is how long an event that must come may take on a loaded machine.
const patience = time.Minute

// A rig is a guest and a host, both x/crypto, with a join between them.
type rig struct {
	t     testing.TB
	guest Conn          // the guest's end of its connection
	host  Conn          // the host's end of its connection
	gate  [2]net.Conn   // the gateway's sockets, by Side
	done  chan struct{} // closed when Join has returned
}

// newRig joins a guest and a host. Nothing answers on either end: the test does.
func newRig(t testing.TB, h *Hooks) *rig { return newLimitedRig(t, h, defaultLimits) }

func newLimitedRig(t testing.TB, h *Hooks, l limits) *rig {
	r := &rig{t: t, done: make(chan struct{})}
	var joined [2]Conn
	r.guest, joined[Guest], r.gate[Guest] = connect(t, true)
	r.host, joined[Host], r.gate[Host] = connect(t, false)
	go func() {
		defer close(r.done)
		joinWith(joined[Guest], joined[Host], h, l)
	}()
	t.Cleanup(r.close)
	return r
}

func (r *rig) close() {
	r.guest.Close()
	r.host.Close()
	await(r.t, r.done, "Join to return")
}

func await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("gave up waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)])
	}
	return v
}

// connect returns both ends of an SSH connection over a loopback socket, and
// the gateway's socket.
func connect(t testing.TB, gatewayServes bool) (far, gateway Conn, socket net.Conn) {
	t.Helper()
	client, server := socketPair(t)
	var wg sync.WaitGroup
	var serving Conn
	var serveErr error
	wg.Go(func() { serving, serveErr = serve(server) })
	dialing, err := dial(client)
	wg.Wait()
	if err != nil || serveErr != nil {
		t.Fatalf("handshake: %v, %v", err, serveErr)
	}
	if gatewayServes {
		return dialing, serving, server
	}
	return serving, dialing, client
}

func serve(c net.Conn) (Conn, error) {
	conn, chans, reqs, err := ssh.NewServerConn(c, serverConfig())
	if err != nil {
		return Conn{}, err
	}
	return Conn{Conn: conn, Channels: chans, Requests: reqs}, nil
}

func dial(c net.Conn) (Conn, error) {
	conn, chans, reqs, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{User: "u", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Config: cryptoConfig})
	return Conn{Conn: conn, Channels: chans, Requests: reqs}, err
}

var cryptoConfig = ssh.Config{Ciphers: []string{ssh.CipherAES128GCM}}

var hostKey = sync.OnceValue(func() ssh.Signer {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		panic(err)
	}
	return s
})

func serverConfig() *ssh.ServerConfig {
	c := &ssh.ServerConfig{NoClientAuth: true, Config: cryptoConfig}
	c.AddHostKey(hostKey())
	return c
}

func socketPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// open has one side open a channel and the other accept it.
func (r *rig) open(from Side, kind string) (near, far end) {
	r.t.Helper()
	opener, accepter := r.guest, r.host
	if from == Host {
		opener, accepter = accepter, opener
	}
	accepted := make(chan end, 1)
	go func() {
		nc := <-accepter.Channels
		if nc == nil {
			return
		}
		ch, reqs, err := nc.Accept()
		if err == nil {
			accepted <- end{ch, reqs}
		}
	}()
	ch, reqs, err := opener.OpenChannel(kind, []byte("extra"))
	if err != nil {
		r.t.Fatalf("open %s: %v", kind, err)
	}
	return end{ch, reqs}, await(r.t, accepted, "the other side to accept")
}

// session has the guest open a session.
func (r *rig) session() (guest, host end) {
	r.t.Helper()
	return r.open(Guest, "session")
}

// An end is one end of a channel.
type end struct {
	ssh.Channel
	reqs <-chan *ssh.Request
}

// request returns the next request, which must be of this type.
func (e end) request(t testing.TB, kind string) *ssh.Request {
	t.Helper()
	r := await(t, e.reqs, kind)
	if r == nil {
		t.Fatalf("channel was closed instead of %s", kind)
	}
	if r.Type != kind {
		t.Fatalf("request %s came instead of %s", r.Type, kind)
	}
	return r
}

// closed waits for CLOSE, and takes no request before.
func (e end) closed(t testing.TB) {
	t.Helper()
	if r := await(t, e.reqs, "CLOSE"); r != nil {
		t.Fatalf("request %s came instead of CLOSE", r.Type)
	}
}
