package hostile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/sshwire"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// outgoing returns the gateway's sockets that are none of its listeners' nor came
// in by them: whatever it dialled, be it that nobody answers, and look-ups of names.
func (w *world) outgoing() (all []string) {
	w.t.Helper()
	proc := fmt.Sprintf("/proc/%d", w.gateway.Cmd.Process.Pid)
	mine := map[string]bool{}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		testenv.Skip(w.t, "needs /proc")
	}
	for _, fd := range fds {
		if to, err := os.Readlink(proc + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			mine[strings.Trim(to, "socket:[]")] = true
		}
	}
	listening := map[string]bool{}
	for _, address := range []string{w.ssh, w.https, w.private} {
		addr, err := net.ResolveTCPAddr("tcp", address)
		mustDo(w.t, err)
		listening[fmt.Sprintf("%04X", addr.Port)] = true
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, _ := os.ReadFile(proc + "/net/" + table)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || !mine[f[9]] {
				continue
			}
			if _, port, _ := strings.Cut(f[1], ":"); !listening[port] {
				all = append(all, table+" to "+f[2])
			}
		}
	}
	return all
}

// targets are where a guest would like a gateway to connect for it.
func targets(trap string) []string {
	_, port, _ := net.SplitHostPort(trap)
	return []string{
		trap, "localhost:" + port, "[::1]:" + port, "0.0.0.0:" + port, "[::ffff:127.0.0.1]:" + port, "2130706433:" + port, "0x7f.1:" + port,
		"127.0.0.1:22", "localhost:22", "[::1]:22", "169.254.169.254:80", "169.254.169.254:22", "metadata.google.internal:80", "[fd00:ec2::254]:80",
		"10.0.0.1:22", "192.168.0.1:443", "172.16.0.1:22", "100.100.100.200:80", "example.com:22", "example.com:443", ":22", "..:22", "-:22",
	}
}

// TestGatewayNeverDials: whatever a guest asks for, in whatever way, the gateway
// connects to nobody.
func TestGatewayNeverDials(t *testing.T) {
	w := newWorld(t)
	trap := testenv.Listen(t)
	sprung := make(chan struct{}, 100)
	go func() {
		for {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			c.Close()
			sprung <- struct{}{}
		}
	}()
	w.startHost("task-a", w.alice, echo)
	w.startHost("task-b", w.bob, echo)
	var seen sync.Map
	watching := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer close(watching)
		for ctx.Err() == nil {
			for _, s := range w.outgoing() {
				seen.Store(s, true)
			}
		}
	}()
	jumper := w.dial("somebody", w.alice)
	guest := w.dial("task-a", w.alice)
	for _, to := range targets(trap.Addr().String()) {
		host, port, err := net.SplitHostPort(to)
		mustDo(t, err)
		var number uint32
		fmt.Sscan(port, &number)
		extra := ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{host, number, "127.0.0.1", 1})
		if ch, _, err := jumper.OpenChannel("direct-tcpip", extra); err == nil {
			ch.Close()
			t.Errorf("a guest without a task reaches %s", to)
		}
		if ch, _, err := guest.OpenChannel("direct-tcpip", extra); err == nil { // of the host, which echoes
			ch.Close()
		}
		w.ask("GET http://" + to + "/ HTTP/1.1\r\nHost: " + to + "\r\n\r\n")
		w.ask("CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n")
		w.ask("GET /ssh?target=" + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n")
	}
	for _, c := range []*ssh.Client{jumper, guest} {
		c.OpenChannel("direct-streamlocal@openssh.com", ssh.Marshal(struct {
			Path, Reserved string
			Zero           uint32
		}{"/var/run/docker.sock", "", 0}))
		c.SendRequest("tcpip-forward", true, ssh.Marshal(struct {
			Host string
			Port uint32
		}{"0.0.0.0", 0}))
		c.SendRequest("streamlocal-forward@openssh.com", true, ssh.Marshal(struct{ Path string }{w.dir + "/forwarded"}))
	}
	stop()
	<-watching
	seen.Range(func(s, _ any) bool {
		t.Errorf("the gateway has a socket: %v", s)
		return true
	})
	if len(sprung) > 0 {
		t.Error("the gateway connected to the trap")
	}
	if _, err := os.Stat(w.dir + "/forwarded"); err == nil {
		t.Error("the gateway listens on a socket for a guest")
	}
	w.intact()
}

// ask sends an HTTP request as it is, and returns the status.
func (w *world) ask(request string) int {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots, NextProtos: []string{"http/1.1"}})
	mustDo(w.t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte(request))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestOtherTenant: bob, who has a task of his own, goes through all there is to get
// into alice's.
func TestOtherTenant(t *testing.T) {
	w := newWorld(t)
	reached := make(chan string, 100)
	h := w.startHost("task-a", w.alice, func(nc ssh.NewChannel) {
		reached <- nc.ChannelType()
		echo(nc)
	})
	mine := w.startHost("task-b", w.bob, echo)
	into := func(what string) {
		t.Helper()
		select {
		case typ := <-reached:
			t.Errorf("%s: a %s channel reached alice's host", what, typ)
		default:
		}
	}
	for _, user := range []string{"task-a", "TASK-A", "task-a.127.0.0.1", "task-a.", "task-b/../task-a", "task-a\x00", "task-a:x", "task-b,task-a"} {
		c, err := ssh.Dial("tcp", w.ssh, w.config(user, ssh.PublicKeys(w.bob.Signer)))
		if err != nil {
			continue
		}
		if said, err := output(c); err == nil {
			t.Errorf("as %q bob has a session: %s", user, said)
		}
		c.Close()
		into("as " + user)
	}
	for _, user := range []string{"task-b", "bob", "root"} {
		c := w.dial(user, w.bob)
		for _, name := range []string{"task-a", "TASK-A", "task-a.127.0.0.1", "task-a."} {
			if nc, err := c.Dial("tcp", name+":22"); err == nil {
				nc.SetDeadline(time.Now().Add(patience))
				greeting := make([]byte, 4)
				nc.Write([]byte("SSH-2.0-x\r\n"))
				nc.Read(greeting)
				if user != "task-b" { // there it is a name in the network of bob's own host, which echoes
					t.Errorf("as %s bob jumps to %s: %q", user, name, greeting)
				}
				nc.Close()
			}
		}
		into("jumps of " + user)
	}
	p := w.wire() // alice's key and bob's signature
	p.Send(sshwire.Service("ssh-userauth"))
	mustDo(t, p.Expect(msgServiceAccept))
	forged := p.AuthRequest("task-a", forgedSigner{w.alice.Signer.PublicKey(), w.bob.Signer})
	p.Send(forged)
	if b, err := p.Receive(); err == nil && b[0] == msgAuthSuccess {
		t.Error("alice's key with bob's signature opens her task")
	}
	key := testenv.Signer(t).PublicKey().Marshal()
	renewal := mine.listener.Welcome().Renewal
	for what, hello := range map[string]tunnel.Hello{
		"a token of another task":   {Task: "task-a", Token: w.token("task-b", w.bob), HostKey: key},
		"a renewal of another task": {Task: "task-a", Renewal: renewal, HostKey: key},
		"a renewal with a new key":  {Task: "task-b", Renewal: renewal, HostKey: key},
		"a renewal as token":        {Task: "task-b", Token: renewal, HostKey: key},
		"a token as renewal":        {Task: "task-a", Renewal: w.token("task-a", w.alice), HostKey: key},
		"no token":                  {Task: "task-a", Token: "x", HostKey: key},
	} {
		if _, answer := w.hello(hello); !strings.Contains(answer, `"refusal"`) {
			t.Errorf("%s: %s", what, answer)
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/", "/admin", "/tasks", "/task-a", "/../etc/passwd", "/%2e%2e/metrics"} {
		if status := w.ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); status >= 200 && status < 300 {
			t.Errorf("%s is public: %d", path, status)
		}
	}
	select {
	case err := <-ended(h):
		t.Errorf("alice's tunnel ended: %v", err)
	default:
	}
	if err := echoes(w.dial("task-a", w.alice)); err != nil {
		t.Errorf("alice: %v", err)
	}
	w.intact()
}

// forgedSigner has one person's public key and another's private one.
type forgedSigner struct {
	public ssh.PublicKey
	ssh.Signer
}

func (f forgedSigner) PublicKey() ssh.PublicKey { return f.public }

func ended(h *host) <-chan error {
	c := make(chan error, 1)
	select {
	case <-h.listener.Done():
		c <- h.listener.Err()
	default:
	}
	return c
}

// TestLogInjection: names, versions, labels and types that others choose neither
// begin lines of the log nor reach the terminal that shows it.
func TestLogInjection(t *testing.T) {
	const evil = "\x1b]0;pwned\x07\x1b[2J\r\n\u009b31m\u202e" + `{"level":"ERROR","msg":"forged"}` + "\ntime=2026-01-01 level=ERROR msg=forged\x00\x7f\xff"
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			w := newWorld(t, "log:", "  level: debug", "  format: "+format, "limits:", "  handshake_timeout: 5s")
			w.alice.Line = strings.TrimSuffix(w.alice.Line, "alice") + "ali\x1b[31mce\u202e"
			w.startHost("task-a", w.alice, echo)
			w.startHost("task-b", w.bob, echo)
			for _, user := range []string{evil, "task-a" + evil, "\n", strings.Repeat(evil, 100)} {
				if c, err := ssh.Dial("tcp", w.ssh, w.config(user, ssh.PublicKeys(w.alice.Signer))); err == nil {
					c.Dial("tcp", evil+":22")
					c.Close()
				}
				ssh.Dial("tcp", w.ssh, w.config(user, ssh.PublicKeys(testenv.Signer(t))))
			}
			config := w.config("task-a", ssh.PublicKeys(w.alice.Signer))
			config.ClientVersion = "SSH-2.0-x\x1b[31m\u009b"
			if c, err := ssh.Dial("tcp", w.ssh, config); err == nil {
				echoes(c)
				c.Close()
			}
			c := w.dial("task-a", w.alice)
			c.OpenChannel(evil, []byte(evil))
			c.SendRequest(evil, true, []byte(evil))
			if ch, reqs, err := c.OpenChannel("session", nil); err == nil {
				go ssh.DiscardRequests(reqs)
				ch.SendRequest(evil, true, []byte(evil))
				ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{evil}))
				ch.Close()
			}
			for _, h := range []tunnel.Hello{
				{Task: "task-c" + evil, Token: w.token("task-b", w.bob)},
				{Task: "task-c", Token: evil},
				{Task: "task-c", Token: w.token("task-c", w.bob), HostKey: testenv.Signer(t).PublicKey().Marshal(), Labels: map[string]string{"a": evil, evil: "b"}},
				{Task: "task-c", Token: w.token("task-c", w.bob), HostKey: []byte(evil)},
			} {
				if _, answer := w.hello(h); strings.Contains(answer, `"welcome"`) {
					t.Errorf("it is welcome: %.40q", h.Task)
				}
			}
			w.ask("GET /" + evil + " HTTP/1.1\r\nHost: x\r\n\r\n")
			w.ask("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: \x1b[31m\r\nX-Forwarded-For: " + strings.Repeat("\x1b", 10) + "\r\n\r\n")
			w.intact()
			checkLog(t, format, w.gateway.Output.String())
		})
	}
}

func checkLog(t *testing.T, format, text string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0xfffd }); i >= 0 {
			t.Errorf("a character of control: %q", line)
		}
		var parsed map[string]any
		if format == "json" && json.Unmarshal([]byte(line), &parsed) != nil || format == "text" && !strings.HasPrefix(line, "time=20") {
			t.Errorf("no line of the log: %q", line)
		}
		if strings.HasPrefix(line, "time=2026-01-01 ") || parsed["msg"] == "forged" {
			t.Errorf("forged: %q", line)
		}
	}
	if !bytes.Contains([]byte(text), []byte("did not sign in")) || len(lines) < 20 {
		t.Errorf("%d lines only: the test is not what it says", len(lines))
	}
}
