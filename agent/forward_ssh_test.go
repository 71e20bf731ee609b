//go:build linux

package agent

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// control sends a command to the master connection.
func (h *testHost) control(args ...string) result {
	h.t.Helper()
	return h.run(h.client("ssh", append(args, "task")...), "")
}

// forward adds a forwarding to the master connection and returns what the client says: the port, when the host chose it.
func (h *testHost) forward(args ...string) string {
	h.t.Helper()
	r := h.control(append([]string{"-O", "forward"}, args...)...)
	if r.status != 0 {
		h.t.Fatalf("%q: %+v", args, r)
	}
	return strings.TrimSpace(r.stdout)
}

// served tells whether somebody listens.
func served(network, address string) bool {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// The four ways from socket to socket, both directions of forwarding, with the real client.
func TestOpenSSHForwards(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	h.master()
	for _, from := range []string{"tcp", "unix"} {
		for _, to := range []string{"tcp", "unix"} {
			answering, echoing := target(t, to, answerAtEOF), target(t, to, echo)
			for _, direction := range []string{"-L", "-R"} {
				listen := func(to string) string {
					address := unusedAddress(t)
					if from == "unix" {
						address = filepath.Join(shortDir(t), "s")
					}
					h.forward(direction, address+":"+to)
					return address
				}
				half, bulk := listen(answering), listen(echoing)
				for range 20 {
					wantAnswer(t, from, half)
				}
				wantEcho(t, dialTarget(t, from, bulk))
				spec := half + ":" + answering
				if r := h.control("-O", "cancel", direction, spec); r.status != 0 {
					t.Errorf("cancel %s %s: %+v", direction, spec, r)
				}
				eventually(t, "the end of "+spec, func() bool { return !served(from, half) })
			}
		}
	}
}

// Port 0, under every name that the client knows for the host's own addresses.
func TestOpenSSHRemotePortIsChosen(t *testing.T) {
	h := newTestHost(t, nil)
	h.master()
	answering := target(t, "tcp", answerAtEOF)
	for _, bind := range []string{"", "localhost:", "*:", "0.0.0.0:", "127.0.0.1:", "[::1]:", "[::]:", "192.0.2.1:"} {
		spec := bind + "0:" + answering
		port := h.forward("-R", spec)
		host := "127.0.0.1"
		if bind == "[::1]:" {
			host = "::1"
		}
		wantAnswer(t, "tcp", net.JoinHostPort(host, port))
		if r := h.control("-O", "cancel", "-R", spec); r.status != 0 { // the client knows it by the 0
			t.Errorf("cancel %s: %+v", spec, r)
		}
		// The client asks for no answer.
		eventually(t, "the end of "+spec, func() bool { return !served("tcp", net.JoinHostPort(host, port)) })
	}
}

// webTarget is a web server in the host's network.
func webTarget(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello "+r.URL.Path) })}
	served := make(chan struct{})
	go func() { defer close(served); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })
	return "http://" + l.Addr().String()
}

// A proxy on either side: -D, and -R with a port alone.
func TestOpenSSHDynamic(t *testing.T) {
	curl := testenv.Need(t, "curl")
	h := newTestHost(t, nil)
	h.master()
	web := webTarget(t)
	local, remote := unusedAddress(t), ""
	h.forward("-D", local)
	remote = "127.0.0.1:" + h.forward("-R", "0")
	for _, proxy := range []string{local, remote} {
		for _, option := range []string{"--socks5-hostname", "--socks5", "--socks4", "--socks4a"} {
			out, err := exec.CommandContext(t.Context(), curl, "-sS", "--noproxy", "", option, proxy, web+"/there").CombinedOutput()
			if err != nil || string(out) != "hello /there" {
				t.Errorf("%s through %s: %s, %v", option, proxy, out, err)
			}
		}
		out, err := exec.CommandContext(t.Context(), curl, "-sS", "--noproxy", "", "--socks5-hostname", proxy, "http://"+unusedAddress(t)).CombinedOutput()
		if err == nil {
			t.Errorf("through %s to nobody: %s", proxy, out)
		}
	}
}

func TestOpenSSHStdioForward(t *testing.T) {
	h := newTestHost(t, nil)
	r := h.run(h.client("ssh", "-W", target(t, "tcp", answerAtEOF), "task"), "ping")
	r.want(t, "received ping")
	big := strings.Repeat("0123456789abcdef", 1<<17)
	h.run(h.client("ssh", "-W", target(t, "tcp", echo), "task"), big).want(t, big)
}

// TestForwardsLikeSSHD compares with a real sshd what the client says of forwardings, and how it exits.
func TestForwardsLikeSSHD(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	port := startSSHD(t, h)
	nobody := unusedAddress(t)
	_, free := hostPort(t, nobody)
	taken := target(t, "tcp", echo)
	_, takenPort := hostPort(t, taken)
	both, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", takenPort))
	must(t, err)
	defer both.Close()
	socket := filepath.Join(shortDir(t), "s")
	must(t, os.WriteFile(socket, nil, 0o600))
	channel := regexp.MustCompile(`channel \d+`)
	for _, args := range [][]string{
		{"-W", taken},
		{"-W", nobody},
		{"-W", "[::1]:" + fmt.Sprint(free)},
		{"-W", "no-such-host.invalid:80"},
		{"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("%d:%s", takenPort, taken)},
		{"-o", "ExitOnForwardFailure=no", "-R", fmt.Sprintf("%d:%s", takenPort, taken)},
		{"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("127.0.0.1:%d:%s", takenPort, taken)},
		{"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("%d:%s", free, taken)},
		{"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("%d:%s", free, taken), "-R", fmt.Sprintf("%d:%s", free, taken)},
		{"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("192.0.2.1:%d:%s", free, taken)},
		{"-o", "ExitOnForwardFailure=yes", "-R", socket + ":" + taken},
		{"-o", "ExitOnForwardFailure=yes", "-R", "/no/such/directory/s:" + taken},
		{"-o", "ExitOnForwardFailure=yes", "-R", socket + "2:" + taken},
		{"-o", "ExitOnForwardFailure=yes", "-R", "/" + strings.Repeat("x", 200) + ":" + taken},
	} {
		command := []string{"-n", "-o", "LogLevel=INFO"}
		destination := []string{"task", "true"}
		if args[0] == "-W" {
			destination = destination[:1]
		}
		ours := h.client("ssh", append(append(command, args...), destination...)...)
		theirs := h.client("ssh", append(append(append(command, "-o", "User="+currentUser(t), "-p", port), args...), destination...)...)
		got, want := h.run(ours, ""), h.run(theirs, "")
		got.stderr, want.stderr = channel.ReplaceAllString(got.stderr, "channel"), channel.ReplaceAllString(want.stderr, "channel")
		if got != want {
			t.Errorf("ssh %q\nagent %+v\nsshd  %+v", args, got, want)
		}
		os.Remove(socket + "2") // sshd leaves it behind
	}
}

// On the addresses where sshd would listen, so does the agent.
func TestListensWhereSSHDDoes(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	port := startSSHD(t, h)
	where := func(bind string, options ...string) []string {
		_, free := hostPort(t, unusedAddress(t))
		args := append([]string{"-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none", "-R", fmt.Sprintf("%s%d:127.0.0.1:1", bind, free)}, options...)
		cmd := h.client("ssh", append(args, "task", "echo ready; cat")...)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		defer cmd.Wait()
		defer in.Close()
		_, err = io.ReadFull(out, make([]byte, len("ready\n")))
		must(t, err)
		return reachable(free, "127.0.0.1", "127.0.0.2", "::1")
	}
	for _, bind := range []string{"", "localhost:", "127.0.0.1:", "[::1]:", "*:", "0.0.0.0:", "[::]:", "127.0.0.2:"} {
		got, want := where(bind), where(bind, "-o", "User="+currentUser(t), "-p", port)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("-R %s: %v, under sshd %v", bind, got, want)
		}
	}
}

// A client that ends takes its forwardings along, whichever way it ends.
func TestOpenSSHEnds(t *testing.T) {
	h := newTestHost(t, nil)
	path := filepath.Join(shortDir(t), "s")
	address := unusedAddress(t)
	answering := target(t, "tcp", answerAtEOF)
	for _, end := range []os.Signal{os.Interrupt, os.Kill} {
		cmd := h.client("ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-R", address+":"+answering, "-R", path+":"+answering, "task")
		must(t, cmd.Start())
		eventually(t, "the socket", func() bool { return served("unix", path) })
		wantAnswer(t, "unix", path)
		wantAnswer(t, "tcp", address)
		must(t, cmd.Process.Signal(end))
		cmd.Wait()
		eventually(t, "the end of the forwardings", func() bool {
			_, err := os.Lstat(path)
			return os.IsNotExist(err) && !served("tcp", address)
		})
	}
}
