//go:build linux

package agent

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// startX starts an X server with a cookie, and returns what a client needs to find it.
func startX(t *testing.T) (env []string) {
	t.Helper()
	authority := filepath.Join(t.TempDir(), "Xauthority")
	add := exec.CommandContext(t.Context(), testenv.Need(t, "xauth"), "-q", "-f", authority, "-")
	add.Stdin = strings.NewReader("add :0 MIT-MAGIC-COOKIE-1 00112233445566778899aabbccddeeff\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), testenv.Need(t, "Xvfb"), "-displayfd", "3", "-screen", "0", "640x480x24", "-auth", authority, "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	must(t, cmd.Start())
	w.Close()
	t.Cleanup(func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() })
	number, err := bufio.NewReader(r).ReadString('\n')
	must(t, err)
	number = strings.TrimSpace(number)
	add = exec.CommandContext(t.Context(), "xauth", "-q", "-f", authority, "-")
	add.Stdin = strings.NewReader("add :" + number + " MIT-MAGIC-COOKIE-1 00112233445566778899aabbccddeeff\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return append(os.Environ(), "DISPLAY=:"+number, "XAUTHORITY="+authority)
}

func TestX11Forwarding(t *testing.T) {
	testenv.Need(t, "xdpyinfo")
	h := newTestHost(t, func(s *Server) { s.Env = append(s.Env, "DISPLAY=:77", "XAUTHORITY=/of/the/task") })
	env := startX(t)
	for _, option := range []string{"-X", "-Y"} {
		for _, tty := range []string{"-T", "-tt"} {
			cmd := h.client("ssh", option, tty, "task", `xdpyinfo | grep dimensions; echo $DISPLAY; stat -c %a $XAUTHORITY; echo $XAUTHORITY`)
			cmd.Env = env
			r := h.run(cmd, "")
			var dimensions, display, mode, authority string
			lines := strings.Split(strings.ReplaceAll(r.stdout, "\r", ""), "\n")
			if len(lines) == 5 {
				dimensions, display, mode, authority = lines[0], lines[1], lines[2], lines[3]
			}
			if r.status != 0 || !strings.Contains(dimensions, "640x480") || !strings.HasPrefix(display, "localhost:") || !strings.HasSuffix(display, ".0") || mode != "600" {
				t.Fatalf("%s %s: %+v", option, tty, r)
			}
			h.noPrivateDir(authority)
			h.noDisplay(display)
		}
	}
	// Without being asked it leaves what the task has.
	cmd := h.client("ssh", "-x", "task", "echo $DISPLAY $XAUTHORITY")
	cmd.Env = env
	h.run(cmd, "").want(t, ":77 /of/the/task\n")
}

// noDisplay fails if this process listens for a display still. The directory of its session must be gone.
func (h *testHost) noDisplay(display string) {
	h.t.Helper()
	var number int
	if _, err := fmt.Sscanf(display, "localhost:%d", &number); err != nil {
		h.t.Fatal(display, err)
	}
	if listens(h.t, 6000+number) {
		h.t.Errorf("%s is still there", display)
	}
}

// listens tells whether this process listens on a TCP port: others may, by then.
func listens(t *testing.T, port int) bool {
	t.Helper()
	var ours []string
	fds, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		ours = append(ours, target)
	}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, _ := os.ReadFile(table)
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line) // sl local remote st … inode
			const listening = "0A"
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && slices.Contains(ours, "socket:["+fields[9]+"]") {
				return true
			}
		}
	}
	return false
}

// Without the cookie the guest's client lets nobody near its display.
func TestX11NeedsTheCookie(t *testing.T) {
	testenv.Need(t, "xdpyinfo")
	h := newTestHost(t, nil)
	cmd := h.client("ssh", "-X", "task", "XAUTHORITY=/dev/null xdpyinfo > /dev/null 2>&1 || echo kept out")
	cmd.Env = startX(t)
	if r := h.run(cmd, ""); r.stdout != "kept out\n" {
		t.Errorf("%+v", r)
	}
}

// Where xauth is missing or fails, the guest is told so, the log says what to do, and the session goes on without.
func TestX11WithoutXauth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ script, log string }{
		"missing": {"", "install xauth"},
		"failing": {"#!/bin/sh\necho no room >&2; exit 1\n", "no room"},
		"hanging": {"#!/bin/sh\nexec /bin/sleep 1000\n", "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if test.script != "" {
				must(t, os.WriteFile(bin+"/xauth", []byte(test.script), 0o700))
			}
			h := newTestHost(t, func(s *Server) { s.Env = append(s.Env, "PATH="+bin) })
			cmd := h.client("ssh", "-X", "-o", "LogLevel=INFO", "task", "echo ${DISPLAY-none}")
			cmd.Env = startX(t)
			r := h.run(cmd, "")
			if r.stdout != "none\n" || r.status != 0 || !strings.Contains(r.stderr, "X11 forwarding request failed") {
				t.Errorf("%+v", r)
			}
			if !strings.Contains(h.logs.String(), "level=WARN") || !strings.Contains(h.logs.String(), test.log) {
				t.Errorf("the log does not say %q", test.log)
			}
		})
	}
}

func TestX11IsRefused(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.Grant.Permissions = []string{auth.PermitExec} })
	c := h.dial()
	ch := openSession(t, c)
	if request(ch, "x11-req", x11Payload(false, "MIT-MAGIC-COOKIE-1", "00", 0)) == nil {
		t.Error("accepted")
	}
}

func x11Payload(single bool, protocol, cookie string, screen uint32) []byte {
	return ssh.Marshal(x11Request{single, protocol, cookie, screen})
}

// The channel tells who connected; bytes go both ways with half-closes; a single connection is only one.
func TestX11Channels(t *testing.T) {
	testenv.Need(t, "xauth")
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("single %v", single), func(t *testing.T) {
			h := newTestHost(t, nil)
			c := h.dial()
			opened := c.HandleChannelOpen("x11")
			ch := openSession(t, c)
			payload := x11Payload(single, "MIT-MAGIC-COOKIE-1", "00ff", 3)
			must(t, request(ch, "x11-req", payload))
			if request(ch, "x11-req", payload) == nil {
				t.Error("a second display for one session")
			}
			must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"echo $DISPLAY; xauth list; echo end; cat"})))
			said := bufio.NewReader(ch)
			display := readLine(t, said)
			var number int
			if n, err := fmt.Sscanf(display, "localhost:%d.3", &number); n != 1 || err != nil {
				t.Fatalf("%q", display)
			}
			if cookie := readLine(t, said); !strings.Contains(cookie, "00ff") || !strings.Contains(cookie, fmt.Sprintf(":%d", number)) {
				t.Errorf("%q", cookie)
			}
			program, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 6000+number))
			must(t, err)
			defer program.Close()
			nc := <-opened
			var origin struct {
				Address string
				Port    uint32
			}
			must(t, ssh.Unmarshal(nc.ExtraData(), &origin))
			if got := net.JoinHostPort(origin.Address, fmt.Sprint(origin.Port)); got != program.LocalAddr().String() {
				t.Errorf("%s, want %s", got, program.LocalAddr())
			}
			guestEnd, reqs, err := nc.Accept()
			must(t, err)
			go ssh.DiscardRequests(reqs)
			program.Write([]byte("drawn"))
			program.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(guestEnd); string(b) != "drawn" || err != nil {
				t.Errorf("%q %v", b, err)
			}
			guestEnd.Write([]byte("seen"))
			guestEnd.Close()
			if b, err := io.ReadAll(program); string(b) != "seen" || err != nil {
				t.Errorf("%q %v", b, err)
			}
			if listens(t, 6000+number) == single {
				t.Errorf("it listens for a second connection: %v", !single)
			}
		})
	}
}

// A window lives on when the command that opened it has ended, until the guest goes.
func TestX11WindowsOutliveTheirSession(t *testing.T) {
	testenv.Need(t, "xauth")
	h := newTestHost(t, nil)
	c := h.dial()
	opened := c.HandleChannelOpen("x11")
	ch := openSession(t, c)
	must(t, request(ch, "x11-req", x11Payload(false, "MIT-MAGIC-COOKIE-1", "00ff", 0)))
	must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"echo $DISPLAY $XAUTHORITY; read x"})))
	display, authority, _ := strings.Cut(readLine(t, bufio.NewReader(ch)), " ")
	var number int
	fmt.Sscanf(display, "localhost:%d", &number)
	window, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 6000+number))
	must(t, err)
	defer window.Close()
	guestEnd, reqs, err := (<-opened).Accept()
	must(t, err)
	go ssh.DiscardRequests(reqs)
	ch.Close()
	h.noPrivateDir(authority)
	h.noDisplay(display)
	guestEnd.Write([]byte("key"))
	got := make([]byte, 3)
	if _, err := io.ReadFull(window, got); string(got) != "key" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	c.Close()
	if b, err := io.ReadAll(window); len(b) != 0 || err != nil {
		t.Errorf("%q %v", b, err)
	}
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	must(t, err)
	return strings.TrimSpace(s)
}

// Sessions side by side have displays of their own, and one that is taken by another program is passed over.
func TestX11Displays(t *testing.T) {
	testenv.Need(t, "xauth")
	h := newTestHost(t, nil)
	c := h.dial()
	seen := make(map[string]bool)
	for range 5 {
		ch := openSession(t, c)
		must(t, request(ch, "x11-req", x11Payload(false, "MIT-MAGIC-COOKIE-1", "00ff", 0)))
		must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"echo $DISPLAY $XAUTHORITY; cat"})))
		seen[readLine(t, bufio.NewReader(ch))] = true
	}
	if len(seen) != 5 {
		t.Error(seen)
	}
	number, sockets, err := listenForX11(t.Context())
	must(t, err)
	defer closeAll(sockets)
	next, others, err := listenForX11(t.Context())
	must(t, err)
	defer closeAll(others)
	if next <= number {
		t.Error(number, next)
	}
	c.Close()
	for each := range seen {
		display, authority, _ := strings.Cut(each, " ")
		h.noPrivateDir(authority)
		h.noDisplay(display)
	}
}

func TestParseX11Request(t *testing.T) {
	for _, bad := range [][]byte{
		nil, {1}, append(x11Payload(false, "MIT-MAGIC-COOKIE-1", "00", 0), 0),
		x11Payload(false, "", "00", 0), x11Payload(false, "MIT", "", 0), x11Payload(false, "MIT", "0", 0), x11Payload(false, "MIT", "0g", 0),
		x11Payload(false, "MIT 00\nremove :0", "00", 0), x11Payload(false, "MIT", "00\nadd", 0), x11Payload(false, "-q", "00", 0),
		x11Payload(false, strings.Repeat("M", 65), "00", 0), x11Payload(false, "MIT", strings.Repeat("00", 300), 0), x11Payload(false, ".", "00", 0),
	} {
		if r, err := parseX11Request(bad); err == nil {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}
