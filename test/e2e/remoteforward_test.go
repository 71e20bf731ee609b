package e2e

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// remoteForward is forward that returns when the host listens.
func (w *world) remoteForward(args ...string) *testenv.Process {
	w.t.Helper()
	p := w.forward(args...)
	p.WaitFor("remote forward success")
	return p
}

// testRemoteForward: what connects on the host arrives at the guest's, and each
// direction ends by itself.
func (w *world) testRemoteForward() {
	g, listen := newGreeter(bulk), testenv.FreeAddress(w.t)
	w.remoteForward("-R", listen+":"+serve(w.t, "127.0.0.1:0", g.handle))
	expectGreeting(w.t, dial(w.t, listen), g)
	listen = testenv.FreeAddress(w.t)
	w.remoteForward("-R", listen+":"+serve(w.t, "127.0.0.1:0", echo))
	expectEcho(w.t, dial(w.t, listen))
	expectAnswer(w.t, dial(w.t, listen)) // and once more
}

var allocated = regexp.MustCompile(`Allocated port (\d+) for remote forward`)

// testRemotePortZero: the host chooses the port and tells it, of two forwardings
// that ask for the same.
func (w *world) testRemotePortZero() {
	p := w.forward("-R", "0:"+serve(w.t, "127.0.0.1:0", echo), "-R", "0:"+serve(w.t, "127.0.0.1:0", echo))
	var ports [][]string
	p.WaitUntil("two ports", func(s string) bool { ports = allocated.FindAllStringSubmatch(s, -1); return len(ports) == 2 })
	for _, port := range ports {
		expectAnswer(w.t, dial(w.t, "127.0.0.1:"+port[1]))
	}
	if ports[0][1] == ports[1][1] {
		w.t.Errorf("the same port twice: %s", ports[0][1])
	}
}

// testRemoteSocket: a socket on the host, for the host's user alone.
func (w *world) testRemoteSocket() {
	path := socket(w.t)
	p := w.remoteForward("-R", path+":"+serve(w.t, "127.0.0.1:0", echo))
	expectAnswer(w.t, dial(w.t, path))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		w.t.Errorf("%v, mode %v: others may connect", err, info.Mode())
	}
	p.Kill()
	awaitNoFile(w.t, path)
}

// awaitNoFile waits until there is nothing at a path. A file has no event that
// could be waited for everywhere.
func awaitNoFile(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(testenv.Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is still there", path)
		}
	}
}

// testRemoteLoopback: whatever address is asked for, the loopback's is bound, as
// by an sshd with its default of GatewayPorts.
func (w *world) testRemoteLoopback() {
	inside := serve(w.t, "127.0.0.1:0", echo)
	for _, asked := range []string{"0.0.0.0", "*", "127.0.0.2", "localhost", "[::]", ""} {
		_, port, _ := strings.Cut(testenv.FreeAddress(w.t), ":")
		p := w.remoteForward("-R", asked+":"+port+":"+inside)
		expectAnswer(w.t, dial(w.t, "127.0.0.1:"+port))
		for _, address := range listeners(w.t, port) {
			if address != "0100007F" && address != "00000000000000000000000001000000" {
				w.t.Errorf("-R %s: the host listens on %s, which is not 127.0.0.1 nor ::1", asked, address)
			}
		}
		p.Kill()
	}
}

// listeners are the addresses on which anybody listens for a port, in the
// kernel's way of writing.
func listeners(t *testing.T, port string) (addresses []string) {
	t.Helper()
	number, err := strconv.Atoi(port)
	mustDo(t, err)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue // no such protocol on this machine
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line) // number, local address, remote address, state
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			if address, hex, _ := strings.Cut(fields[1], ":"); hex == strings.ToUpper(strconv.FormatInt(int64(number), 16)) {
				addresses = append(addresses, address)
			}
		}
	}
	return addresses
}

// testForwardFailure: a port that is taken is told, and ends ssh if it is to.
func (w *world) testForwardFailure() {
	taken := serve(w.t, "127.0.0.1:0", echo)
	forward := taken + ":" + taken
	out := fails(w.t, w.command("ssh", "-v", "-o", "ExitOnForwardFailure=yes", "-R", forward, w.target(), "true"))
	if !strings.Contains(out, "Error: remote port forwarding failed for listen port") {
		w.t.Errorf("other words:\n%s", out)
	}
	cmd := w.command("ssh", "-v", "-R", forward, w.target(), "echo went on")
	both, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(both), "Warning: remote port forwarding failed") || !strings.Contains(string(both), "went on\n") {
		w.t.Errorf("%v\n%s", err, both)
	}
}

// testForwardOwner: a guest can neither take nor cancel what another guest made
// the host listen for, be it with the same key.
func (w *world) testForwardOwner() {
	listen, path := testenv.FreeAddress(w.t), socket(w.t)
	inside := serve(w.t, "127.0.0.1:0", echo)
	w.remoteForward("-R", listen+":"+inside)
	w.remoteForward("-R", path+":"+inside)
	other, err := ssh.Dial("tcp", w.ssh, &ssh.ClientConfig{
		User: w.task, Auth: []ssh.AuthMethod{ssh.PublicKeys(w.key.Signer)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey), Timeout: testenv.Patience,
	})
	mustDo(w.t, err)
	defer other.Close()
	_, number, _ := strings.Cut(listen, ":")
	port, err := strconv.Atoi(number)
	mustDo(w.t, err)
	type tcp struct {
		Address string
		Port    uint32
	}
	type unix struct{ Path string }
	for _, request := range []struct {
		name    string
		payload []byte
	}{
		{"cancel-tcpip-forward", ssh.Marshal(tcp{"127.0.0.1", uint32(port)})},
		{"tcpip-forward", ssh.Marshal(tcp{"127.0.0.1", uint32(port)})},
		{"cancel-streamlocal-forward@openssh.com", ssh.Marshal(unix{path})},
	} {
		if ok, _, err := other.SendRequest(request.name, true, request.payload); err != nil || ok {
			w.t.Errorf("another guest's %s: %v, %v", request.name, ok, err)
		}
		expectAnswer(w.t, dial(w.t, listen))
		expectAnswer(w.t, dial(w.t, path))
	}
}

// testForwardsGone kills a client the hard way: nothing listens any more, and
// what was connected is told.
func (w *world) testForwardsGone() {
	t := w.t
	accepted := make(chan halfConn, 1)
	ended := make(chan error, 1)
	target := serve(t, "127.0.0.1:0", func(c halfConn) {
		accepted <- c
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	local, remote, path := testenv.FreeAddress(t), testenv.FreeAddress(t), socket(t)
	p := w.remoteForward("-L", local+":"+target, "-R", remote+":"+serve(t, "127.0.0.1:0", echo), "-R", path+":"+target)
	dial(t, local)
	<-accepted
	onHost := dial(t, remote)
	p.Kill()
	awaitFree(t, remote, local)
	awaitNoFile(t, path)
	if _, err := io.Copy(io.Discard, onHost); os.IsTimeout(err) {
		t.Error("what had connected on the host was left alone")
	}
	if err := <-ended; os.IsTimeout(err) {
		t.Error("the target was left alone")
	}
}
