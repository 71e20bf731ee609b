package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestForward is what guests do with -L, -D, -W and -R, through the gateway.
func TestForward(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	w.testForwards(t)
}

func (w *world) testForwards(t *testing.T) {
	t.Run("local", func(t *testing.T) { w.in(t).testLocalForward() })
	t.Run("local from and to sockets", func(t *testing.T) { w.in(t).testSocketForward() })
	t.Run("half-closed by nc and socat", func(t *testing.T) { w.in(t).testHalfClose() })
	t.Run("dynamic", func(t *testing.T) { w.in(t).testDynamicForward() })
	t.Run("standard input and output", func(t *testing.T) { w.in(t).testStdioForward() })
	t.Run("remote", func(t *testing.T) { w.in(t).testRemoteForward() })
	t.Run("remote, any port", func(t *testing.T) { w.in(t).testRemotePortZero() })
	t.Run("remote socket", func(t *testing.T) { w.in(t).testRemoteSocket() })
	t.Run("loopback only", func(t *testing.T) { w.in(t).testRemoteLoopback() })
	t.Run("on demand", func(t *testing.T) { w.in(t).testControlForward() })
	t.Run("port taken", func(t *testing.T) { w.in(t).testForwardFailure() })
	t.Run("of one guest alone", func(t *testing.T) { w.in(t).testForwardOwner() })
	t.Run("gone with the guest", func(t *testing.T) { w.in(t).testForwardsGone() })
}

// forward runs ssh -N with forwardings and returns when the client has asked for
// all of them.
func (w *world) forward(args ...string) *testenv.Process {
	w.t.Helper()
	args = append([]string{"-v", "-N", "-o", "ExitOnForwardFailure=yes"}, append(args, w.target())...)
	p := testenv.StartClient(w.t, w.command("ssh", args...))
	p.WaitFor("Entering interactive session")
	return p
}

// bulk is more than the windows between two ends hold, some is more than a buffer.
const (
	bulk = 6 << 20
	some = 200 << 10
)

// expectAnswer is enough to see that a forwarding works.
func expectAnswer(t *testing.T, c halfConn) {
	t.Helper()
	expectEchoOf(t, c, 1<<10)
}

// testLocalForward: megabytes both ways, and each direction ends by itself.
func (w *world) testLocalForward() {
	echoAddress, g := serve(w.t, "127.0.0.1:0", echo), newGreeter(bulk)
	toEcho, toGreeter := testenv.FreeAddress(w.t), testenv.FreeAddress(w.t)
	w.forward("-L", toEcho+":"+echoAddress, "-L", toGreeter+":"+serve(w.t, "127.0.0.1:0", g.handle))
	expectEcho(w.t, dial(w.t, toEcho))
	expectGreeting(w.t, dial(w.t, toGreeter), g)
}

// expectEcho sends, half-closes, and wants everything back.
func expectEcho(t *testing.T, c halfConn) {
	t.Helper()
	expectEchoOf(t, c, bulk)
}

func expectEchoOf(t *testing.T, c halfConn, size int) {
	t.Helper()
	data, want := noise(size)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	mustDo(t, c.CloseWrite())
	if sum, n, err := checksum(c); err != nil || sum != want {
		t.Errorf("after the half-close %d bytes came of %d, or others: %v", n, len(data), err)
	}
}

// expectGreeting reads to the end, and then speaks.
func expectGreeting(t *testing.T, c halfConn, g *greeter) {
	t.Helper()
	if data, err := io.ReadAll(c); err != nil || !bytes.Equal(data, g.greeting) {
		t.Errorf("%d bytes of greeting, want %d: %v", len(data), len(g.greeting), err)
	}
	answer, _ := noise(bulk)
	if _, err := c.Write(answer); err != nil {
		t.Errorf("after the server's half-close: %v", err)
	}
	c.Close()
	ctx, cancel := contextFor(t)
	defer cancel()
	select {
	case told := <-g.told:
		if !bytes.Equal(told, answer) {
			t.Errorf("the server was told %d bytes, want %d", len(told), len(answer))
		}
	case <-ctx.Done():
		t.Error("the server was not told the end")
	}
}

// testSocketForward leads from a local port to a socket of the host, and from a
// local socket to a port.
func (w *world) testSocketForward() {
	remote, local, port := socket(w.t), socket(w.t), testenv.FreeAddress(w.t)
	serve(w.t, remote, echo)
	w.forward("-L", port+":"+remote, "-L", local+":"+serve(w.t, "127.0.0.1:0", echo), "-o", "StreamLocalBindUnlink=yes")
	expectEcho(w.t, dial(w.t, port))
	expectEcho(w.t, dial(w.t, local))
}

// testHalfClose uses the programs that people use.
func (w *world) testHalfClose() {
	port := testenv.FreeAddress(w.t)
	w.forward("-L", port+":"+serve(w.t, "127.0.0.1:0", echo))
	dial(w.t, port).Close()
	host, number, _ := strings.Cut(port, ":")
	for _, command := range [][]string{{"nc", "-N", host, number}, {"socat", "-t60", "-", "TCP:" + port}} {
		ctx, cancel := contextFor(w.t)
		cmd := exec.CommandContext(ctx, testenv.Need(w.t, command[0]), command[1:]...)
		data, _ := noise(some)
		cmd.Stdin = bytes.NewReader(data)
		if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
			w.t.Errorf("%q: %d bytes of %d: %v", command, len(out), len(data), err)
		}
		cancel()
	}
}

// testDynamicForward lets curl resolve names on the host, and by all it knows of
// SOCKS.
func (w *world) testDynamicForward() {
	t := w.t
	data, want := noise(some)
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.Write(data) }))
	t.Cleanup(site.Close)
	_, port, _ := net.SplitHostPort(site.Listener.Addr().String())
	proxy := testenv.FreeAddress(t)
	w.forward("-D", proxy)
	dial(t, proxy).Close()
	for _, test := range [][2]string{
		{"--socks5-hostname", "localhost"}, {"--socks5", "127.0.0.1"}, {"--socks4a", "localhost"}, {"--socks4", "127.0.0.1"},
	} {
		ctx, cancel := contextFor(t)
		cmd := exec.CommandContext(ctx, testenv.Need(t, "curl"), "-sS", "--fail", "--noproxy", "", test[0], proxy, "http://"+test[1]+":"+port+"/")
		sum, _, err := checksum(strings.NewReader(mustRun(t, cmd)))
		if err != nil || sum != want {
			t.Errorf("curl %s: other bytes came: %v", test[0], err)
		}
		cancel()
	}
}

// testStdioForward: -W, and the end of either side ends ssh.
func (w *world) testStdioForward() {
	data, want := noise(bulk)
	cmd := w.command("ssh", "-W", serve(w.t, "127.0.0.1:0", echo), w.target())
	cmd.Stdin = bytes.NewReader(data)
	sum, _, err := checksum(strings.NewReader(mustRun(w.t, cmd)))
	if err != nil || sum != want {
		w.t.Errorf("other bytes came: %v", err)
	}
}

// testControlForward adds and takes away forwardings of a connection that is
// there.
func (w *world) testControlForward() {
	t := w.t
	mux := filepath.Join(t.TempDir(), "mux")
	control := func(args ...string) error {
		return quietly(w.command("ssh", append([]string{"-o", "ControlPath=" + mux}, append(args, w.target())...)...))
	}
	mustDo(t, control("-o", "ControlMaster=yes", "-fN"))
	defer control("-O", "exit")
	inside := serve(t, "127.0.0.1:0", echo)
	for _, kind := range []string{"-L", "-R"} {
		port := testenv.FreeAddress(t)
		forward := port + ":" + inside
		if err := control("-O", "forward", kind, forward); err != nil {
			t.Fatalf("-O forward %s: %v", kind, err)
		}
		expectAnswer(t, dial(t, port))
		if err := control("-O", "cancel", kind, forward); err != nil {
			t.Errorf("-O cancel %s: %v", kind, err)
		}
		awaitFree(t, port)
	}
	if err := control("-O", "check"); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
}

// TestForwardWords: what does not work is told as by sshd.
func TestForwardWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	sshd := w.startSSHD()
	closed := testenv.FreeAddress(t)
	missing, plain := filepath.Join(t.TempDir(), "missing"), lines(t, "no socket")
	for _, test := range []struct{ name, option, to string }{
		{"closed port", "-W", closed},
		{"no such name", "-W", "no-such-name.invalid:80"},
		{"not an address", "-W", "999.999.999.999:80"},
		{"no such socket", "-L", missing},
		{"no socket", "-L", plain},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, sshd := w.in(t), sshd.in(t)
			got, want := w.refusal(test.option, test.to), sshd.refusal(test.option, test.to)
			// Of a socket sshd does not say why. It logs it.
			want, unsaid := strings.CutSuffix(want, "open failed")
			if got != want && !(unsaid && strings.HasPrefix(got, want)) {
				t.Errorf("stagedoor: %q\nsshd: %q", got, want)
			}
		})
	}
}

// refusal is what ssh says of a target that cannot be reached.
func (w *world) refusal(option, to string) string {
	w.t.Helper()
	if option == "-W" {
		var stderr bytes.Buffer
		cmd := w.command("ssh", "-v", "-W", to, w.target())
		cmd.Stdin, cmd.Stderr = nil, &stderr
		if status := testenv.ExitCode(cmd.Run()); status != 255 {
			w.t.Fatalf("-W %s: status %d\n%s", to, status, stderr.String())
		}
		return openFailed(stderr.String())
	}
	port := testenv.FreeAddress(w.t)
	p := w.forward(option, port+":"+to)
	io.Copy(io.Discard, dial(w.t, port))
	p.WaitFor("open failed")
	return openFailed(p.Output.String())
}

// openFailed cuts the refusal out of ssh's log, without the channel's number.
func openFailed(log string) string {
	for line := range strings.Lines(log) {
		if _, words, ok := strings.Cut(line, "open failed: "); ok {
			return strings.TrimSpace(words)
		}
	}
	return fmt.Sprintf("nothing, in %s", log)
}
