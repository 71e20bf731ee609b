package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func contextFor(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), patience)
}

// TestGatewayIsKilled: a gateway that dies and starts again finds its agents
// back, and its host key is the same.
func TestGatewayIsKilled(t *testing.T) {
	w := newWorld(t)
	agent := w.startAgent(nil)
	w.run("true")
	mustDo(t, w.gateway.cmd.Process.Kill())
	<-w.gateway.done
	w.gateway = w.startGateway()
	w.gateway.waitFor("host registered")
	if got := w.run("echo back"); got != "back\n" {
		t.Errorf("output %q", got)
	}
	select {
	case <-agent.done:
		t.Errorf("the agent ended: %v", agent.err)
	default:
	}
}

// TestDrain: a SIGTERM hands the ports to a successor at once, while an open
// session goes on.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	w.startAgent(nil)
	cmd := w.command("ssh", w.target(), "cat")
	stdin, err := cmd.StdinPipe()
	mustDo(t, err)
	stdout, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	lines := bufio.NewReader(stdout)
	echo := func(text string) {
		t.Helper()
		io.WriteString(stdin, text+"\n")
		if got, err := lines.ReadString('\n'); err != nil || got != text+"\n" {
			t.Fatalf("%v: %q", err, got)
		}
	}
	echo("before")
	old := w.gateway
	mustDo(t, old.cmd.Process.Signal(syscall.SIGTERM))
	old.waitFor("drain")
	awaitFree(t, w.ssh, w.https, w.private)
	w.gateway = w.startGateway()
	w.gateway.waitFor("host registered")
	if got := w.run("echo new"); got != "new\n" {
		t.Errorf("by the new gateway: %q", got)
	}
	echo("after")
	stdin.Close()
	mustDo(t, cmd.Wait())
	select {
	case <-old.done:
		if old.err != nil {
			t.Errorf("the old gateway ended with %v", old.err)
		}
	case <-time.After(patience):
		t.Error("the old gateway goes on without guests")
	}
}

// awaitFree waits until nobody listens.
func awaitFree(t *testing.T, addresses ...string) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, address := range addresses {
		for {
			c, err := net.Dial("tcp", address)
			if err != nil {
				break
			}
			c.Close()
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("somebody still listens on %s", address)
			}
		}
	}
}

// TestSecondSignal ends a drain that would wait for a guest.
func TestSecondSignal(t *testing.T) {
	w := newWorld(t)
	w.startAgent(nil)
	cmd := w.command("ssh", w.target(), "echo started; sleep 1000")
	stdout, err := cmd.StdoutPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	mustDo(t, w.gateway.cmd.Process.Signal(syscall.SIGTERM))
	w.gateway.waitFor("drain")
	awaitFree(t, w.ssh)
	mustDo(t, w.gateway.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-w.gateway.done:
	case <-time.After(patience):
		t.Fatal("the gateway goes on")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the guest was not cut off")
	}
}

// TestReload: SIGHUP takes a key that was added; a file with a mistake changes
// nothing and is named with its line.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	operator := testenv.NewKey(t, dir, "operator")
	keys := filepath.Join(dir, "authorized_keys")
	mustDo(t, os.WriteFile(keys, nil, 0o600))
	w := newWorld(t, "guests:", "  authorized_keys: ["+keys+"]")
	w.startAgent(nil)
	own := w.key
	w.key = operator
	if err := w.command("ssh", w.target(), "true").Run(); exitCode(err) != 255 {
		t.Fatalf("a key that is not in the file: %v", err)
	}
	mustDo(t, os.WriteFile(keys, []byte(operator.Line+"\n"), 0o600))
	mustDo(t, w.gateway.cmd.Process.Signal(syscall.SIGHUP))
	w.gateway.waitFor("reloaded")
	w.run("true")

	config, err := os.ReadFile(w.config)
	mustDo(t, err)
	mustDo(t, os.WriteFile(w.config, append(config, "no_such_key: 1\n"...), 0o600))
	mustDo(t, w.gateway.cmd.Process.Signal(syscall.SIGHUP))
	w.gateway.waitFor(fmt.Sprintf("%s:%d", w.config, strings.Count(string(config), "\n")+1))
	w.run("true")
	w.key = own
	w.run("true")
}

// TestSilentLink lets the agent's link die without a word: both ends notice it,
// the agent dials again, and the task is reachable.
func TestSilentLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	link := newLink(t, w.https)
	agent := w.startAgent([]string{"STAGEDOOR_GATEWAY=" + link.Addr().String()})
	w.run("true")
	start := time.Now()
	link.silence()
	w.gateway.waitFor("tunnel ended")
	t.Logf("the gateway noticed after %v", time.Since(start).Round(time.Second))
	ctx, cancel := contextFor(t)
	defer cancel()
	if !w.gateway.out.wait(ctx, func(s string) bool { return strings.Count(s, "host registered") == 2 }, w.gateway.done) {
		t.Fatalf("the agent did not dial again:\n%s", agent.out.String())
	}
	t.Logf("the agent was back after %v", time.Since(start).Round(time.Second))
	if got := w.run("echo back"); got != "back\n" {
		t.Errorf("output %q", got)
	}
}

// link is a TCP relay whose connections can fall silent: bytes are swallowed,
// nothing is closed. Or they can be cut. Later connections work.
type link struct {
	net.Listener
	target string
	silent atomic.Int64 // connections up to this number
	count  atomic.Int64
	mu     sync.Mutex // guards conns
	conns  []net.Conn
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	mustDo(t, err)
	k := &link{Listener: l, target: target}
	go k.serve()
	t.Cleanup(func() { k.Close() })
	return k
}

func (l *link) serve() {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", l.target)
		if err != nil {
			c.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, c, up)
		l.mu.Unlock()
		n := l.count.Add(1)
		go l.copy(n, up, c)
		go l.copy(n, c, up)
	}
}

// cut ends all connections so far.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func (l *link) silence() { l.silent.Store(l.count.Load()) }

func (l *link) copy(n int64, to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		k, err := from.Read(buf)
		if l.silent.Load() >= n {
			if err != nil {
				return // and the other end never hears of it
			}
			continue
		}
		if k > 0 {
			if _, werr := to.Write(buf[:k]); werr != nil {
				return
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// TestReadiness: /readyz fails while the gateway still listens, for as long as
// the lame duck lasts.
func TestReadiness(t *testing.T) {
	w := newWorld(t, "drain:", "  lame_duck: 1s")
	mustDo(t, w.gateway.cmd.Process.Signal(syscall.SIGTERM))
	deadline := time.After(patience)
	for {
		resp, err := http.Get("http://" + w.private + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
			break
		}
		select {
		case <-w.gateway.done:
		case <-deadline:
			t.Fatal("/readyz does not fail")
		default:
		}
	}
	if c, err := net.Dial("tcp", w.ssh); err != nil {
		t.Errorf("the listener closed before the lame duck ended: %v", err)
	} else {
		c.Close()
	}
	select {
	case <-w.gateway.done:
	case <-time.After(patience):
		t.Error("the gateway goes on")
	}
}
