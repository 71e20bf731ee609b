//go:build linux

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// target serves every connection on a listener of its own until the test ends. It returns where.
func target(t *testing.T, network string, serve func(halfConn)) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(shortDir(t), "target")
	}
	l, err := net.Listen(network, address)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { c.Close() })
			wg.Go(func() { defer stop(); defer c.Close(); serve(c.(halfConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fwd")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// answerAtEOF replies only when the other side has sent everything.
func answerAtEOF(c halfConn) {
	b, _ := io.ReadAll(c)
	fmt.Fprintf(c, "received %s", b)
}

func echo(c halfConn) { io.Copy(c, c) }

// dialTarget dials what a program of the guest or the host would.
func dialTarget(t *testing.T, network, address string) halfConn {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(patience)))
	return c.(halfConn)
}

// wantAnswer sends, ends its direction, and reads what answerAtEOF has to say.
func wantAnswer(t *testing.T, network, address string) {
	t.Helper()
	c := dialTarget(t, network, address)
	defer c.Close()
	_, err := io.WriteString(c, "ping")
	must(t, err)
	must(t, c.CloseWrite())
	b, err := io.ReadAll(c)
	if err != nil || string(b) != "received ping" {
		t.Fatalf("%q, %v", b, err)
	}
}

// wantEcho sends much and expects it back, both ways at once.
func wantEcho(t *testing.T, c halfConn) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	b, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(b, sent) {
		t.Fatalf("%d bytes came back of %d, %v", len(b), len(sent), err)
	}
}

// unusedAddress is a port that nobody listened on a moment ago.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// openTo opens a direct-tcpip channel.
func openTo(c *ssh.Client, host string, port uint32) (ssh.Channel, <-chan *ssh.Request, error) {
	return c.OpenChannel("direct-tcpip", ssh.Marshal(struct {
		Host string
		Port uint32
		O    string
		P    uint32
	}{host, port, "192.0.2.1", 7}))
}

func hostPort(t *testing.T, address string) (string, uint32) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	n, err := strconv.ParseUint(port, 10, 16)
	must(t, err)
	return host, uint32(n)
}

// wantRefusal fails unless a channel was refused for this reason, in words that contain some.
func wantRefusal(t *testing.T, err error, reason ssh.RejectionReason, words string) {
	t.Helper()
	refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
	if !ok || refusal.Reason != reason || !strings.Contains(refusal.Message, words) {
		t.Errorf("%v, want %v: %s", err, reason, words)
	}
}

func TestDirectIsRefusedInWords(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	host, port := hostPort(t, unusedAddress(t))
	for _, test := range []struct {
		host   string
		port   uint32
		reason ssh.RejectionReason
		words  string
	}{
		{host, port, ssh.ConnectionFailed, "Connection refused"},
		{"::1", port, ssh.ConnectionFailed, "Connection refused"},
		{"localhost", port, ssh.ConnectionFailed, "Connection refused"},
		{host, 65536, ssh.Prohibited, "no port 65536"},
		{host, 1 << 31, ssh.Prohibited, "no port"},
		{"", port, ssh.ConnectionFailed, "Name or service not known"},
		{"a\x00b", port, ssh.ConnectionFailed, "Name or service not known"},
		{strings.Repeat("a", 2000), port, ssh.ConnectionFailed, "Name or service not known"},
		{"[" + host + "]", port, ssh.ConnectionFailed, ""},
	} {
		_, _, err := openTo(c, test.host, test.port)
		wantRefusal(t, err, test.reason, test.words)
	}
	for _, test := range []struct {
		path   string
		reason ssh.RejectionReason
		words  string
	}{
		{h.path("none"), ssh.ConnectionFailed, "No such file or directory"},
		{h.path("config"), ssh.ConnectionFailed, "Connection refused"},
		{"@abstract", ssh.ConnectionFailed, "No such file or directory"},
		{"", ssh.Prohibited, "not the path of a socket"},
		{"/a\x00b", ssh.Prohibited, "not the path of a socket"},
		{"/" + strings.Repeat("a", 107), ssh.Prohibited, "more than 107 bytes"},
	} {
		_, err := c.Dial("unix", test.path)
		wantRefusal(t, err, test.reason, test.words)
	}
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
}

func TestWordsForAFailedDial(t *testing.T) {
	for words, err := range map[string]error{
		"Connection timed out":                 &net.OpError{Op: "dial", Err: context.DeadlineExceeded},
		"Network is unreachable":               &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)},
		"Temporary failure in name resolution": &net.OpError{Op: "dial", Err: &net.DNSError{IsTimeout: true}},
		"Name or service not known":            &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}},
		"open failed":                          &net.AddrError{Err: "odd"},
	} {
		if got := (&dialError{err}).words(); got != words {
			t.Errorf("%v: %q, want %q", err, got, words)
		}
	}
}

// A relative path is one in the task's directory.
func TestRelativeSocket(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.Dir = shortDir(t) })
	l, err := net.Listen("unix", filepath.Join(h.Dir, "app.sock"))
	must(t, err)
	defer l.Close()
	c, err := h.dial().Dial("unix", "app.sock")
	must(t, err)
	c.Close()
}

// unfinished dials a port whose queue is full, so that the kernel neither takes nor refuses.
func unfinished(t *testing.T) (host string, port uint32) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, syscall.Listen(fd, 0))
	sa, err := syscall.Getsockname(fd)
	must(t, err)
	port = uint32(sa.(*syscall.SockaddrInet4).Port)
	dialTarget(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	return "127.0.0.1", port
}

// A target that does not answer holds up nothing else, and is given up with the connection.
func TestTargetThatDoesNotAnswer(t *testing.T) {
	h := newTestHost(t, nil)
	host, port := unfinished(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port))); err == nil || (&dialError{err}).words() != "Connection timed out" {
		t.Errorf("%v", err)
	}
	c := h.dial()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := openTo(c, host, port); err == nil {
				t.Error("connected")
			}
		})
	}
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
	c.Close()
	wg.Wait()
	h.Close() // returns before the kernel gives up
}

// The reply to a half-close arrives, whoever half-closes first.
func TestHalfCloses(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	for _, network := range []string{"tcp", "unix"} {
		patient := target(t, network, answerAtEOF)
		for range 50 {
			fc, err := c.Dial(network, patient)
			must(t, err)
			fmt.Fprint(fc, "ping")
			must(t, fc.(interface{ CloseWrite() error }).CloseWrite())
			b, err := io.ReadAll(fc)
			if err != nil || string(b) != "received ping" {
				t.Fatalf("%q, %v", b, err)
			}
			fc.Close()
		}
		heard := make(chan string, 1)
		hasty := target(t, network, func(c halfConn) {
			fmt.Fprint(c, "bye")
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			heard <- string(b)
		})
		fc, err := c.Dial(network, hasty)
		must(t, err)
		if b, err := io.ReadAll(fc); err != nil || string(b) != "bye" {
			t.Fatalf("%q, %v", b, err)
		}
		fmt.Fprint(fc, "late")
		must(t, fc.Close())
		if s := <-heard; s != "late" {
			t.Fatalf("%q", s)
		}
	}
}

// A guest that closes its channel has its last bytes delivered, although the target sends first and reads only then.
func TestGuestCloses(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	for _, size := range []int{1 << 10, 1 << 20} { // what the kernel holds, and more
		heard := make(chan int, 1)
		address := target(t, "tcp", func(c halfConn) {
			io.CopyN(c, zeroes{}, 64<<20) // nobody takes it
			n, _ := io.Copy(io.Discard, c)
			heard <- int(n)
		})
		fc, err := c.Dial("tcp", address)
		must(t, err)
		_, err = fc.Write(make([]byte, size))
		must(t, err)
		must(t, fc.Close())
		if got := <-heard; got != size {
			t.Errorf("%d bytes of %d", got, size)
		}
	}
}

// When the connection is lost the targets are told, one that does not read included.
func TestConnectionIsLost(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	ended := make(chan string, 2)
	reading := target(t, "tcp", func(c halfConn) {
		b, _ := io.ReadAll(c)
		ended <- string(b)
	})
	stuck := target(t, "unix", func(c halfConn) { <-t.Context().Done() }) // its buffers are smaller than TCP's
	fc, err := c.Dial("tcp", reading)
	must(t, err)
	fmt.Fprint(fc, "some")
	full, err := c.Dial("unix", stuck)
	must(t, err)
	_, err = io.CopyN(full, zeroes{}, 1<<20)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(full, zeroes{}) }) // until nothing more fits
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
	c.Close()
	if s := <-ended; s != "some" {
		t.Errorf("%q", s)
	}
	wg.Wait()
	h.Close()
}

// A target that resets its connection ends the channel, not one direction of it.
func TestTargetResets(t *testing.T) {
	h := newTestHost(t, nil)
	address := target(t, "tcp", func(c halfConn) {
		c.Read(make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
	ch, requests, err := openTo(h.dial(), "127.0.0.1", func() uint32 { _, p := hostPort(t, address); return p }())
	must(t, err)
	io.WriteString(ch, "x")
	for range requests { // until the channel is closed
	}
	if _, err := ch.Write([]byte("y")); err == nil {
		t.Error("written to a closed channel")
	}
}

// What a guest may send on a forwarded channel but has no business to: it must not stall.
func TestNonsenseOnAForwardedChannel(t *testing.T) {
	h := newTestHost(t, nil)
	_, port := hostPort(t, target(t, "tcp", echo))
	ch, requests, err := openTo(h.dial(), "127.0.0.1", port)
	must(t, err)
	go ssh.DiscardRequests(requests)
	for range 100 {
		if ok, err := ch.SendRequest("exec", true, []byte("nonsense")); ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	_, err = ch.Stderr().Write(make([]byte, 5<<20)) // more than its window
	must(t, err)
	fmt.Fprint(ch, "ping")
	must(t, ch.CloseWrite())
	if b, err := io.ReadAll(ch); err != nil || string(b) != "ping" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestForwardedBytesAreActivity(t *testing.T) {
	h := newTestHost(t, nil)
	talk := make(chan struct{})
	fc, err := h.dial().Dial("tcp", target(t, "tcp", func(c halfConn) {
		<-talk
		fmt.Fprint(c, "x")
		c.Read(make([]byte, 1))
		fmt.Fprint(c, "z")
	}))
	must(t, err)
	opened := h.LastActivity()
	close(talk)
	_, err = io.ReadFull(fc, make([]byte, 1))
	must(t, err)
	heard := h.LastActivity()
	if opened.IsZero() || !heard.After(opened) {
		t.Errorf("opened %v, heard %v", opened, heard)
	}
	fmt.Fprint(fc, "y")
	_, err = io.ReadFull(fc, make([]byte, 1))
	must(t, err)
	if !h.LastActivity().After(heard) {
		t.Error("what the guest sends is no activity")
	}
}

// guests are the two kinds, with the same permissions.
func guests(t *testing.T, p *ssh.Permissions, options string) map[string]*ssh.Client {
	t.Helper()
	h := newTestHost(t, nil)
	spliced, err := dialWith(t, h, h.serveTunnel(vouched{task: "task-1", perms: p, remote: "192.0.2.7:4711"}))
	must(t, err)
	direct := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys[0] = options + " " + s.Grant.AuthorizedKeys[0] })
	return map[string]*ssh.Client{"spliced": spliced, "end to end": direct.dial()}
}

func TestPermitOpenAndListen(t *testing.T) {
	allowed, forbidden := target(t, "tcp", echo), target(t, "tcp", echo)
	socket := target(t, "unix", echo)
	_, port := hostPort(t, unusedAddress(t))
	listen := fmt.Sprintf("localhost:%d", port)
	p := auth.DefaultPermissions()
	p.CriticalOptions[auth.PermitOpen], p.CriticalOptions[auth.PermitListen] = allowed, listen
	for kind, c := range guests(t, p, fmt.Sprintf(`permitopen="%s",permitlisten="%s"`, allowed, listen)) {
		fc, err := c.Dial("tcp", allowed)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		fc.Close()
		_, err = c.Dial("tcp", forbidden)
		wantRefusal(t, err, ssh.Prohibited, "not among the targets")
		_, err = c.Dial("unix", socket)
		wantRefusal(t, err, ssh.Prohibited, "not among the targets")
		for address, want := range map[forwardArgs]bool{{"localhost", port}: true, {"", port}: false, {"localhost", 0}: false} {
			if ok, _, err := c.SendRequest("tcpip-forward", true, ssh.Marshal(address)); ok != want || err != nil {
				t.Errorf("%s: %v: %v, %v", kind, address, ok, err)
			}
		}
		if _, err := c.ListenUnix(filepath.Join(shortDir(t), "s")); err == nil {
			t.Errorf("%s: listens on a socket", kind)
		}
		c.Close()
		eventually(t, "the port is free", func() bool {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				l.Close()
			}
			return err == nil
		})
	}
}

func TestWithoutPortForwarding(t *testing.T) {
	address := target(t, "tcp", echo)
	p := auth.DefaultPermissions()
	delete(p.Extensions, auth.PermitPortForwarding)
	for kind, c := range guests(t, p, "no-port-forwarding") {
		_, err := c.Dial("tcp", address)
		wantRefusal(t, err, ssh.Prohibited, auth.ShortPermission(auth.PermitPortForwarding))
		_, err = c.Dial("unix", target(t, "unix", echo))
		wantRefusal(t, err, ssh.Prohibited, auth.ShortPermission(auth.PermitPortForwarding))
		if _, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
			t.Errorf("%s: listens", kind)
		}
		if _, err := c.ListenUnix(filepath.Join(shortDir(t), "s")); err == nil {
			t.Errorf("%s: listens on a socket", kind)
		}
	}
}

// What the host opens is judged too.
func TestOpenChannelIsJudged(t *testing.T) {
	p := auth.DefaultPermissions()
	delete(p.Extensions, auth.PermitPortForwarding)
	g := (&Server{}).newGuest(dialTarget(t, "tcp", target(t, "tcp", echo)), nil)
	defer g.end()
	g.conn = &ssh.ServerConn{Permissions: p}
	_, _, err := g.openChannel("forwarded-tcpip", nil)
	wantRefusal(t, err, ssh.Prohibited, auth.ShortPermission(auth.PermitPortForwarding))
}

// hangingConn is what x/crypto can be in the moment in which its connection ends.
type hangingConn struct {
	ssh.Conn
	asked, release chan struct{}
}

func (c hangingConn) OpenChannel(string, []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	close(c.asked)
	<-c.release
	return nil, nil, net.ErrClosed
}

func TestOpenChannelHangs(t *testing.T) {
	g := (&Server{}).newGuest(dialTarget(t, "tcp", target(t, "tcp", echo)), nil)
	conn := hangingConn{asked: make(chan struct{}), release: make(chan struct{})}
	defer close(conn.release)
	g.conn = &ssh.ServerConn{Conn: conn, Permissions: auth.DefaultPermissions()}
	go func() { <-conn.asked; g.end() }()
	if _, _, err := g.openChannel("forwarded-tcpip", nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
