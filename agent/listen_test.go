//go:build linux

package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// forwardArgs is the payload of tcpip-forward and cancel-tcpip-forward.
type forwardArgs struct {
	Address string
	Port    uint32
}

// ask sends a global request and fails unless the answer is as wanted.
func ask(t *testing.T, c *ssh.Client, name string, payload any, want bool) (reply []byte) {
	t.Helper()
	ok, reply, err := c.SendRequest(name, true, ssh.Marshal(payload))
	if ok != want || err != nil {
		t.Fatalf("%s %+v: %v, %v", name, payload, ok, err)
	}
	return reply
}

// listenPort asks for a port of the host's choice.
func listenPort(t *testing.T, c *ssh.Client, address string) (port uint32) {
	t.Helper()
	reply := ask(t, c, "tcpip-forward", forwardArgs{address, 0}, true)
	if len(reply) != 4 {
		t.Fatalf("reply %x", reply)
	}
	return binary.BigEndian.Uint32(reply)
}

// reachable tells on which of the addresses somebody listens.
func reachable(port uint32, hosts ...string) (where []string) {
	for _, host := range hosts {
		if c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port))); err == nil {
			c.Close()
			where = append(where, host)
		}
	}
	return where
}

func TestWhatSSHDWouldBind(t *testing.T) {
	loop, any := "[127.0.0.1 ::1]", "[0.0.0.0 ::]"
	for address, want := range map[string][2]string{ // without and with leave to choose
		"":             {loop, any},
		"*":            {loop, any},
		"localhost":    {loop, loop},
		"127.0.0.1":    {"[127.0.0.1]", "[127.0.0.1]"},
		"::1":          {"[::1]", "[::1]"},
		"0.0.0.0":      {loop, "[0.0.0.0]"},
		"::":           {loop, "[::]"},
		"192.0.2.1":    {loop, "[192.0.2.1]"},
		"fe80::1%eth0": {loop, "[fe80::1%eth0]"},
	} {
		for i, mayChoose := range []bool{false, true} {
			addrs, err := bindAddrs(t.Context(), address, mayChoose)
			if err != nil || fmt.Sprint(addrs) != want[i] {
				t.Errorf("%q: %v, %v, want %s", address, addrs, err, want[i])
			}
		}
	}
	if _, err := bindAddrs(t.Context(), "no such host", true); err == nil {
		t.Error("a name that does not exist")
	}
}

// Loopback alone, unless the guest may choose.
func TestWhereAForwardingListens(t *testing.T) {
	h := newTestHost(t, nil)
	chooser := h.serveTunnel(vouched{task: "task-1", perms: auth.FullPermissions(), remote: "192.0.2.7:4711"})
	ordinary := h.dial()
	free, err := dialWith(t, h, chooser)
	must(t, err)
	all := []string{"127.0.0.1", "127.0.0.2", "::1"}
	for _, test := range []struct {
		c       *ssh.Client
		address string
		want    []string
	}{
		{ordinary, "127.0.0.2", []string{"127.0.0.1", "::1"}},
		{ordinary, "", []string{"127.0.0.1", "::1"}},
		{ordinary, "127.0.0.1", []string{"127.0.0.1"}},
		{free, "127.0.0.2", []string{"127.0.0.2"}},
		{free, "::1", []string{"::1"}},
		{free, "localhost", []string{"127.0.0.1", "::1"}},
	} {
		port := listenPort(t, test.c, test.address)
		if got := reachable(port, all...); !slices.Equal(got, test.want) {
			t.Errorf("%q: %v, want %v", test.address, got, test.want)
		}
		ask(t, test.c, "cancel-tcpip-forward", forwardArgs{test.address, port}, true)
		if got := reachable(port, all...); got != nil {
			t.Errorf("%q: %v after it was cancelled", test.address, got)
		}
	}
}

// The channel for a connection names the address as the guest wrote it, and the peer.
func TestForwardedPayload(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	opened := c.HandleChannelOpen("forwarded-tcpip")
	for _, address := range []string{"", "localhost", "odd name", "0.0.0.0"} {
		port := listenPort(t, c, address)
		nc := dialTarget(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		offer := <-opened
		var got struct {
			Address string
			Port    uint32
			Origin  string
			From    uint32
		}
		must(t, ssh.Unmarshal(offer.ExtraData(), &got))
		origin := netip.MustParseAddrPort(nc.LocalAddr().String())
		if got.Address != address || got.Port != port || got.Origin != "127.0.0.1" || got.From != uint32(origin.Port()) {
			t.Errorf("%+v, want %q %d %v", got, address, port, origin)
		}
		must(t, offer.Reject(ssh.ConnectionFailed, "no"))
		if b, err := io.ReadAll(nc); err != nil || len(b) > 0 { // closed, as the guest refused
			t.Errorf("%q, %v", b, err)
		}
	}
}

// A client that dials the moment it knows the port, and one that knows it ahead, are both served.
func TestForwardedAtOnce(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	for range 50 {
		l, err := c.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		dialed := make(chan halfConn, 1)
		go func() { dialed <- dialTarget(t, "tcp", l.Addr().String()) }()
		fc, err := l.Accept()
		must(t, err)
		fmt.Fprint(fc, "hello")
		must(t, fc.(interface{ CloseWrite() error }).CloseWrite())
		nc := <-dialed
		if b, err := io.ReadAll(nc); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
		fmt.Fprint(nc, "reply")
		nc.Close()
		if b, err := io.ReadAll(fc); err != nil || string(b) != "reply" {
			t.Fatalf("%q, %v", b, err)
		}
		fc.Close()
		must(t, l.Close())
	}
}

func TestForwardingsBelongToTheirConnection(t *testing.T) {
	h := newTestHost(t, nil)
	mine, other := h.dial(), h.dial()
	path := filepath.Join(shortDir(t), "s")
	args, socket := forwardArgs{"localhost", listenPort(t, mine, "localhost")}, struct{ P string }{path}
	ask(t, mine, "streamlocal-forward@openssh.com", socket, true)
	for _, c := range []*ssh.Client{mine, other} { // no second one
		ask(t, c, "tcpip-forward", args, false)
		ask(t, c, "streamlocal-forward@openssh.com", socket, false)
	}
	ask(t, other, "cancel-tcpip-forward", args, false)
	ask(t, other, "cancel-streamlocal-forward@openssh.com", socket, false)
	ask(t, mine, "cancel-tcpip-forward", forwardArgs{"127.0.0.1", args.Port}, false) // under another name
	other.Close()
	if got := reachable(args.Port, "127.0.0.1", "::1"); len(got) != 2 {
		t.Errorf("reachable: %v", got)
	}
	dialTarget(t, "unix", path)
	mine.Close()
	eventually(t, "the end of the forwardings", func() bool {
		_, err := os.Lstat(path)
		return reachable(args.Port, "127.0.0.1", "::1") == nil && os.IsNotExist(err)
	})
	for _, line := range []string{"listening for the guest", "no longer listening for the guest"} {
		if n := strings.Count(h.logs.String(), fmt.Sprintf("level=INFO msg=%q", line)); n != 2 {
			t.Errorf("%d lines %q", n, line)
		}
	}
}

func TestSocketIsPrivateAndReplacesNothing(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.Dir = shortDir(t) })
	c := h.dial()
	path := filepath.Join(h.Dir, "s")
	arg := struct{ P string }{"s"} // relative
	ask(t, c, "streamlocal-forward@openssh.com", arg, true)
	info, err := os.Lstat(path)
	must(t, err)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	ask(t, c, "cancel-streamlocal-forward@openssh.com", arg, true)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket after it was cancelled: %v", err)
	}
	ask(t, c, "streamlocal-forward@openssh.com", arg, true)
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, []byte("another"), 0o600))
	ask(t, c, "cancel-streamlocal-forward@openssh.com", arg, true)
	ask(t, c, "streamlocal-forward@openssh.com", arg, false)
	if b, err := os.ReadFile(path); err != nil || string(b) != "another" {
		t.Errorf("%q, %v", b, err)
	}
	for _, bad := range []string{"", "a\x00b", strings.Repeat("x", 108), "none/s"} {
		ask(t, c, "streamlocal-forward@openssh.com", struct{ P string }{bad}, false)
	}
}

func TestForwardedSocket(t *testing.T) {
	h := newTestHost(t, nil)
	path := filepath.Join(shortDir(t), "s")
	l, err := h.dial().ListenUnix(path)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		fc, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(fc, fc)
		fc.Close()
	})
	wantEcho(t, dialTarget(t, "unix", path))
	wg.Wait()
}

func TestMalformedForwardings(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	good := ssh.Marshal(forwardArgs{"localhost", 0})
	for _, name := range []string{"tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com"} {
		for _, payload := range [][]byte{
			nil, {1}, {0xff, 0xff, 0xff, 0xff}, good[:len(good)-1], append(slices.Clone(good), 0),
			ssh.Marshal(forwardArgs{"localhost", 65536}), ssh.Marshal(forwardArgs{"a\x00b", 0}),
			ssh.Marshal(forwardArgs{strings.Repeat("a", 2000), 0}),
			append(ssh.Marshal(struct{ P string }{h.path("s")}), 0),
		} {
			ok, reply, err := c.SendRequest(name, true, payload)
			if ok || len(reply) > 0 || err != nil {
				t.Errorf("%s %q: %v %q %v", name, payload, ok, reply, err)
			}
		}
	}
	for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com"} {
		for _, payload := range [][]byte{nil, {1}, {0xff, 0xff, 0xff, 0xff}, append(ssh.Marshal(struct {
			H string
			P uint32
			O string
			Q uint32
		}{"localhost", 1, "", 0}), 0)} {
			_, _, err := c.OpenChannel(kind, payload)
			wantRefusal(t, err, ssh.Prohibited, "cannot be read")
		}
	}
	listenPort(t, c, "localhost")
}

func TestListeningsAreBounded(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	var ports []uint32
	for range maxListenings {
		ports = append(ports, listenPort(t, c, "127.0.0.1"))
	}
	ask(t, c, "tcpip-forward", forwardArgs{"127.0.0.1", 0}, false)
	ask(t, c, "streamlocal-forward@openssh.com", struct{ P string }{filepath.Join(shortDir(t), "s")}, false)
	ask(t, c, "cancel-tcpip-forward", forwardArgs{"127.0.0.1", ports[0]}, true)
	listenPort(t, c, "127.0.0.1")
}

// A forwarding that cannot be had on one of its addresses is had on the other, as under sshd.
func TestOneAddressIsTaken(t *testing.T) {
	h := newTestHost(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	_, port := hostPort(t, l.Addr().String())
	c := h.dial()
	ask(t, c, "tcpip-forward", forwardArgs{"127.0.0.1", port}, false)
	ask(t, c, "tcpip-forward", forwardArgs{"localhost", port}, true)
	if got := reachable(port, "::1"); len(got) != 1 {
		t.Error("nobody listens on ::1")
	}
}

// failingListener has no descriptors left until it is closed.
type failingListener struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (l *failingListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		return nil, os.NewSyscallError("accept4", syscall.EMFILE)
	}
}
func (l *failingListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *failingListener) Addr() net.Addr { return &net.TCPAddr{} }

// Without descriptors to accept with, a listening waits longer each time, and ends without delay.
func TestOutOfDescriptors(t *testing.T) {
	logs := new(syncBuffer)
	s := &Server{Logger: slog.New(slog.NewTextHandler(logs, nil))}
	g := s.newGuest(dialTarget(t, "tcp", target(t, "tcp", echo)), nil)
	must(t, g.addListening(g.newListening(listenKey{network: "tcp"}, []net.Listener{&failingListener{closed: make(chan struct{})}})))
	g.listenings[listenKey{network: "tcp"}].serve()
	eventually(t, "longer and longer delays", func() bool {
		for _, delay := range []string{"5ms", "10ms", "20ms", "40ms"} {
			if strings.Count(logs.String(), "delay="+delay) != 1 {
				return false
			}
		}
		return true
	})
	g.end()
}

// TestNoSocketLetsTheJobGoOn: who may have the agent listen makes sockets of any name, but not the file that ends a hold.
func TestNoSocketLetsTheJobGoOn(t *testing.T) {
	a, j := &Agent{Dir: shortDir(t)}, &job{}
	l, err := net.Listen("unix", a.continuePath())
	must(t, err)
	if a.mayContinue(j) {
		t.Error("a socket lets the job go on")
	}
	l.Close()
	must(t, os.WriteFile(a.continuePath(), nil, 0o600))
	if !a.mayContinue(j) {
		t.Error("the file does not")
	}
}
