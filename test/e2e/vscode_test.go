package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// What Remote-SSH of Visual Studio Code does, by the logs in its issues
// (microsoft/vscode-remote-release: 8132, 10255, 10403, 10974, and 3273 for the
// socket):
//
//   - It runs ssh -T -D PORT HOST sh (or bash) and writes a script to its stdin. The
//     script prints "ID: running", unpacks the server if it is not there, looks in a
//     file for the pid of one that still runs, or starts one in the background with
//     all its output in a file, waits until that says where it listens, prints
//     "listeningOn==PORT==" between "ID: start" and "ID: end", and then a space every
//     three minutes, for ever.
//   - It reaches the server through the SOCKS port with some long connections and
//     with one more for each port that its user forwards. With
//     remoteServerListenOnSocket, ssh -T -L PORT:SOCKET leads to a Unix socket.
//   - When the link was cut it does all of that again, and finds the server, with
//     everything that is open in it, by its pid.
const codeScript = `
echo "ID: running"
cd .code-server || exit 1
if ! kill -0 "$(cat pid)" 2>/dev/null; then
	CODE_SERVER_SOCKET='%s' ./code-server >log 2>&1 </dev/null &
	echo $! >pid
fi
while ! grep -q 'listening on' log; do sleep .03; done
echo "ID: start"
echo "listeningOn==$(sed -n 's/.*listening on //p' log)=="
echo "pid==$(cat pid)=="
echo "ID: end"
while read -r line; do echo "got $line"; done
while true; do sleep 180; printf ' '; done
`

// codeServer is what the test's own binary does when it runs as the server on the
// host: it sends back what it is told, on a port and on a socket.
func codeServer(path string) int {
	ctx, cancel := context.WithTimeout(context.Background(), lifetime) // should nobody end it
	defer cancel()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		var unix net.Listener
		if unix, err = net.Listen("unix", path); err == nil {
			go acceptEchoes(unix)
			go acceptEchoes(port)
			fmt.Println("Extension host agent listening on", port.Addr().(*net.TCPAddr).Port)
			<-ctx.Done()
			return 0
		}
	}
	fmt.Println(err)
	return 1
}

func acceptEchoes(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// TestVSCode replays the above through the gateway.
func TestVSCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:", "  keepalive_interval: 500ms", "  keepalive_count: 200")
	w.startAgent(nil)
	w.installCodeServer()
	path := socket(t)
	first := w.openCode(path)
	first.useServer()
	first.say("still there")
	first.awaitIdle()
	first.useServer()
	first.say("and there")
	first.link.Cut()
	if status := first.ssh.Wait(); status != 255 {
		t.Errorf("the client of a link that was cut ended with %d", status)
	}
	second := w.openCode(path)
	if first.pid != second.pid || first.port != second.port {
		t.Errorf("after the cut: server %d on port %d, before: server %d on port %d", second.pid, second.port, first.pid, first.port)
	}
	second.useServer()
}

// installCodeServer pipes a tarball through a session's stdin: a program that is the
// test's own, and much else.
func (w *world) installCodeServer() {
	w.t.Helper()
	self, err := os.Executable()
	mustDo(w.t, err)
	extensions, want := noise(4 << 20)
	var tarball bytes.Buffer
	tw := tar.NewWriter(&tarball)
	for name, content := range map[string][]byte{"code-server": []byte("#!/bin/sh\nexec '" + self + "'\n"), "extensions": extensions} {
		mustDo(w.t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err := tw.Write(content)
		mustDo(w.t, err)
	}
	mustDo(w.t, tw.Close())
	cmd := w.command("ssh", "-T", w.target(), "mkdir -m 700 .code-server && tar -xf - -C .code-server && echo unpacked")
	cmd.Stdin = &tarball
	if got := mustRun(w.t, cmd); got != "unpacked\n" {
		w.t.Fatalf("output %q", got)
	}
	if sumOf(w.t, filepath.Join(w.home, ".code-server", "extensions")) != want {
		w.t.Error("other bytes arrived")
	}
}

// code is a window of the editor.
type code struct {
	*world
	link  *testenv.Relay
	ssh   *testenv.Process
	stdin io.Writer
	socks string
	local string // leads to the server's socket
	port  int    // of the server
	pid   int
}

var codeMarkers = regexp.MustCompile(`(?s)ID: start\n.*listeningOn==(\d+)==\npid==(\d+)==\n.*ID: end\n`)

// openCode runs ssh and its script, until the server is there.
func (w *world) openCode(path string) *code {
	w.t.Helper()
	c := &code{world: w.in(w.t), link: testenv.NewRelay(w.t, w.ssh), socks: testenv.FreeAddress(w.t), local: testenv.FreeAddress(w.t)}
	c.world.ssh = c.link.Addr()
	cmd := c.command("ssh", "-v", "-T", "-D", c.socks, "-L", c.local+":"+path, w.target(), "sh")
	var err error
	c.stdin, err = cmd.StdinPipe()
	mustDo(w.t, err)
	c.ssh = testenv.StartClient(w.t, cmd)
	fmt.Fprintf(c.stdin, codeScript, path)
	c.ssh.WaitFor("ID: end\n")
	m := codeMarkers.FindStringSubmatch(c.ssh.Output.String())
	if m == nil {
		w.t.Fatalf("no markers in\n%s", c.ssh.Output.String())
	}
	c.port, _ = strconv.Atoi(m[1])
	c.pid, _ = strconv.Atoi(m[2])
	w.t.Cleanup(func() { syscall.Kill(c.pid, syscall.SIGKILL) })
	return c
}

// say tells the script a line, which has it answer.
func (c *code) say(line string) {
	c.t.Helper()
	io.WriteString(c.stdin, line+"\n")
	c.ssh.WaitFor("got " + line + "\n")
}

// useServer opens many connections at a time, by SOCKS and to the socket, and uses
// each of them while all are open.
func (c *code) useServer() {
	c.t.Helper()
	const each = 24
	var conns []halfConn
	for range each {
		conns = append(conns, c.dialSOCKS(), dial(c.t, c.local))
	}
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() {
			for range 3 {
				data, want := noise(32 << 10)
				go conn.Write(data)
				if got, _, err := checksum(io.LimitReader(conn, int64(len(data)))); err != nil || got != want {
					c.t.Errorf("the server answered something else: %v", err)
				}
			}
		})
	}
	all.Wait()
	for _, conn := range conns {
		conn.Close()
	}
}

// dialSOCKS connects to the server by SOCKS 5, RFC 1928, without a password.
func (c *code) dialSOCKS() halfConn {
	c.t.Helper()
	conn := dial(c.t, c.socks)
	request := []byte{5, 1, 0} // version 5, one method: none
	request = append(request, 5, 1, 0, 1, 127, 0, 0, 1)
	request = binary.BigEndian.AppendUint16(request, uint16(c.port))
	conn.Write(request)
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(conn, reply); err != nil || reply[3] != 0 {
		c.t.Fatalf("SOCKS: %v, reply % x", err, reply)
	}
	return conn
}

// awaitIdle lets the connection rest until both ends have asked several times
// whether the other is there.
func (c *code) awaitIdle() {
	c.t.Helper()
	const question = "rtype keepalive@openssh.com"
	asked := strings.Count(c.ssh.Output.String(), question)
	c.ssh.WaitUntil("keepalives", func(s string) bool { return strings.Count(s, question) >= asked+3 })
}
