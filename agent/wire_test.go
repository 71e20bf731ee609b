//go:build linux

package agent

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// recorder notes what goes out on a channel. The library sends each thing before the call returns, so this is the wire's order.
type recorder struct {
	ssh.Channel
	mu     sync.Mutex
	events []string
}

func (r *recorder) note(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.events); n == 0 || r.events[n-1] != event {
		r.events = append(r.events, event)
	}
}

func (r *recorder) Write(p []byte) (int, error) { r.note("data"); return r.Channel.Write(p) }
func (r *recorder) CloseWrite() error           { r.note("eof"); return r.Channel.CloseWrite() }
func (r *recorder) Close() error                { r.note("close"); return r.Channel.Close() }
func (r *recorder) Stderr() io.ReadWriter       { return recordedStderr{r, r.Channel.Stderr()} }
func (r *recorder) SendRequest(name string, reply bool, payload []byte) (bool, error) {
	r.note(name)
	return r.Channel.SendRequest(name, reply, payload)
}

type recordedStderr struct {
	r *recorder
	io.ReadWriter
}

func (s recordedStderr) Write(p []byte) (int, error) {
	if len(p) > 0 {
		s.r.note("data")
	}
	return s.ReadWriter.Write(p)
}

// recordedClient connects to a guest whose channels are recorded.
func recordedClient(t *testing.T, h *testHost) (*ssh.Client, <-chan *recorder) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	recorders := make(chan *recorder, 1)
	must(t, h.setup())
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		g := h.newGuest(nc, nil)
		g.handshake = time.NewTimer(patience)
		conn, chans, reqs, err := ssh.NewServerConn(nc, g.config())
		if err != nil {
			return
		}
		g.enter(conn)
		go ssh.DiscardRequests(reqs)
		for c := range chans {
			ch, requests, err := c.Accept()
			if err != nil {
				return
			}
			r := &recorder{Channel: ch}
			g.serveSession(r, requests)
			recorders <- r
		}
	}()
	h2 := *h
	h2.addr = l.Addr().String()
	return h2.dial(), recorders
}

func TestWireOrder(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, command string
		pty           bool
		end           string
	}{
		{"output", "echo out; echo err >&2; echo out; exit 3", false, "exit-status"},
		{"no output", "true", false, "exit-status"},
		{"signal", "echo out; kill -TERM $$", false, "exit-signal"},
		{"stdout closed early", "echo out; exec >&- 2>&-", false, "exit-status"},
		{"background", "(sleep 0.01; echo late) & echo out", false, "exit-status"},
		{"terminal", "echo out; echo err >&2", true, "exit-status"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHost(t, nil)
			c, recorders := recordedClient(t, h)
			for range 100 {
				s, err := c.NewSession()
				must(t, err)
				if test.pty {
					must(t, s.RequestPty("vt100", 24, 80, nil))
				}
				s.CombinedOutput(test.command)
				s.Close()
				var events []string
				for _, e := range (<-recorders).events {
					if e != "data" || len(events) > 0 && events[0] != "data" || len(events) == 0 {
						events = append(events, e)
					}
				}
				want := []string{"data", test.end, "eof", "close"}
				if test.name == "no output" {
					want = want[1:]
				}
				if !slices.Equal(events, want) {
					t.Fatalf("sent %q, want %q", events, want)
				}
			}
		})
	}
}

// The same seen by the real client, through one shared connection, where it matters most.
func TestOpenSSHNeverMissesTheStatus(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	h.master()
	for i := range 100 {
		r := h.ssh("", "-o", "ControlMaster=no", fmt.Sprintf("echo out; exit %d", i))
		r.wantAll(t, "out\n", "", i)
	}
	order := regexp.MustCompile(`rtype exit-status|rcvd eof|rcvd close`)
	for range 20 {
		cmd := h.client("ssh", "-vvv", "-o", "LogLevel=DEBUG3", "-o", "ControlPath=none", "task", "echo out; exit 3")
		got := order.FindAllString(h.run(cmd, "").stderr, -1)
		if strings.Join(got, ", ") != "rtype exit-status, rcvd eof, rcvd close" {
			t.Fatalf("the client received %q", got)
		}
	}
}
