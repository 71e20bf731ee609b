package splice

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A sink is a server on loopback that answers only when its peer has closed its
// half: what a protocol like HTTP/1.0 or git does, and what fails when a
// forward does not pass EOF on as it comes.
func sink(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in, _ := io.ReadAll(c)
				c.Write(in)
				fmt.Fprintf(c, "%d bytes", len(in))
			}()
		}
	}()
	return ln
}

// askSink sends b, closes its half and returns what comes back.
func askSink(t *testing.T, c net.Conn, b []byte) []byte {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go func() {
		c.Write(b)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read through the forward: %v", err)
	}
	return got
}

func sinkAnswer(b []byte) []byte { return fmt.Append(bytes.Clone(b), len(b), " bytes") }

// forwarding starts an ssh that only forwards, and returns once it does: ssh
// runs the host's echo when everything else has been set up.
func (l *lab) forwarding(t *testing.T, way string, options ...string) {
	t.Helper()
	args := append([]string{"-o", "ExitOnForwardFailure=yes"}, options...)
	cmd := l.ssh(way, append(args, hostName, "echo ready; cat >/dev/null")...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		cmd.Wait()
		t.Fatalf("%s: %v: %s", way, err, errs.String())
	}
}

// freePort returns a port that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// TestForwards sends some bytes, and then many at once, through each kind.
func TestForwards(t *testing.T) {
	l := newLab(t)
	tcp := sink(t, "tcp", "127.0.0.1:0").Addr().String()
	unix := sink(t, "unix", filepath.Join(l.dir, "sink")).Addr().String()
	for _, kind := range []struct {
		name, option string
		target       string
		unix         bool
	}{
		{name: "local", option: "-L", target: tcp},
		{name: "local to a socket", option: "-L", target: unix},
		{name: "local socket", option: "-L", target: tcp, unix: true},
		{name: "local socket to a socket", option: "-L", target: unix, unix: true},
		{name: "remote", option: "-R", target: tcp},
		{name: "remote to a socket", option: "-R", target: unix},
		{name: "remote socket", option: "-R", target: tcp, unix: true},
		{name: "remote socket to a socket", option: "-R", target: unix, unix: true},
	} {
		for _, way := range both {
			t.Run(kind.name+" "+way, func(t *testing.T) {
				t.Parallel()
				network, addr := "tcp", "127.0.0.1:"+freePort(t)
				if kind.unix {
					network, addr = "unix", filepath.Join(l.dir, fmt.Sprintf("listen-%d", time.Now().UnixNano()))
				}
				l.forwarding(t, way, kind.option, addr+":"+kind.target)
				for range 20 {
					go dialAndAsk(t, network, addr, []byte("hello"))
				}
				dialAndAsk(t, network, addr, nil)
				dialAndAsk(t, network, addr, noise(3<<20))
			})
		}
	}
}

func dialAndAsk(t *testing.T, network, addr string, b []byte) {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Error(err)
		return
	}
	if got := askSink(t, c, b); !bytes.Equal(got, sinkAnswer(b)) {
		t.Errorf("%d bytes came back of %d", len(got), len(sinkAnswer(b)))
	}
}

// TestDynamicForward speaks SOCKS5 to ssh -D.
func TestDynamicForward(t *testing.T) {
	l := newLab(t)
	target := sink(t, "tcp", "127.0.0.1:0").Addr().(*net.TCPAddr)
	for _, way := range both {
		port := freePort(t)
		l.forwarding(t, way, "-D", port)
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte{5, 1, 0})
		io.ReadFull(c, make([]byte, 2))
		c.Write([]byte{5, 1, 0, 1, 127, 0, 0, 1, byte(target.Port >> 8), byte(target.Port)})
		reply := make([]byte, 10)
		if _, err := io.ReadFull(c, reply); err != nil || reply[1] != 0 {
			t.Fatalf("%s: SOCKS reply %x, %v", way, reply, err)
		}
		if got := askSink(t, c, []byte("hello")); !bytes.Equal(got, sinkAnswer([]byte("hello"))) {
			t.Errorf("%s: %q came back", way, got)
		}
	}
}

// TestStdioForward is ssh -W, what ProxyJump uses.
func TestStdioForward(t *testing.T) {
	l := newLab(t)
	target := sink(t, "tcp", "127.0.0.1:0").Addr().String()
	for _, way := range both {
		got := run(t, l.ssh(way, "-W", target, hostName), bytes.NewReader(noise(1<<20)))
		if want := string(sinkAnswer(noise(1 << 20))); got != (outcome{stdout: want}) {
			t.Errorf("%s: %v", way, got)
		}
	}
}

// TestRemotePortZero needs the payload of the reply to tcpip-forward, and that
// reply ahead of the first channel from the port.
func TestRemotePortZero(t *testing.T) {
	l := newLab(t)
	l.logLevel = "INFO"
	target := sink(t, "tcp", "127.0.0.1:0").Addr().String()
	for _, way := range both {
		cmd := l.ssh(way, "-N", "-R", "127.0.0.1:0:"+target, hostName)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop()
		var port int
		buf := make([]byte, 4096)
		for seen := ""; port == 0; {
			n, err := stderr.Read(buf)
			if err != nil {
				t.Fatalf("%s: %v: %s", way, err, seen)
			}
			seen += string(buf[:n])
			if i := strings.Index(seen, "Allocated port "); i >= 0 {
				fmt.Sscanf(seen[i:], "Allocated port %d ", &port)
			}
		}
		dialAndAsk(t, "tcp", fmt.Sprint("127.0.0.1:", port), []byte("hello"))
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// TestAgentForward lists the guest's keys from the host.
func TestAgentForward(t *testing.T) {
	l := newLab(t)
	sock := filepath.Join(l.dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", sock)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer agent.Wait()
	defer agent.Process.Kill()
	waitFor(t, "ssh-agent's socket", func() bool { _, err := os.Stat(sock); return err == nil })
	add := exec.Command("ssh-add", "-q", filepath.Join(l.dir, "guest_key"))
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v: %s", err, out)
	}
	for _, way := range both {
		cmd := l.ssh(way, "-A", hostName, "ssh-add -l")
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
		if got := run(t, cmd, nil); got.status != 0 || !strings.Contains(got.stdout, "ED25519") {
			t.Errorf("%s: %v", way, got)
		}
	}
}

// waitFor polls for what announces itself by no event.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}
