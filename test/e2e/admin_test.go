package e2e

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// event is a line of the audit stream.
type event map[string]any

// is tells whether an event has the name and all of the fields, given as name and
// value in turn.
func (e event) is(name string, fields ...any) bool {
	if e["event"] != name {
		return false
	}
	for i := 0; i < len(fields); i += 2 {
		if e[fields[i].(string)] != fields[i+1] {
			return false
		}
	}
	return true
}

// events reads an audit stream.
func events(t *testing.T, file string) []event {
	t.Helper()
	data, err := os.ReadFile(file)
	mustDo(t, err)
	var all []event
	for line := range strings.Lines(string(data)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var e event
		mustDo(t, json.Unmarshal([]byte(line), &e))
		if e["v"] != 1.0 || e["time"] == nil {
			t.Fatalf("a line without version or time: %s", line)
		}
		all = append(all, e)
	}
	return all
}

// awaitEvent returns the first event of that name with these fields.
func awaitEvent(t *testing.T, file, name string, fields ...any) event {
	t.Helper()
	var found event
	poll(t, func() bool {
		for _, e := range events(t, file) {
			if e.is(name, fields...) {
				found = e
				return true
			}
		}
		return false
	}, func() string { return name + " is not in the audit stream:\n" + read(t, file) })
	return found
}

// poll waits for what has no event of its own.
func poll(t *testing.T, ok func() bool, otherwise func() string) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(otherwise())
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	mustDo(t, err)
	return string(data)
}

func fingerprint(k testenv.Key) string { return ssh.FingerprintSHA256(k.Signer.PublicKey()) }

// TestAudit does what there is to do, and reads of it in the audit stream.
func TestAudit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, "audit:", "  file: "+file)
	awaitEvent(t, file, "gateway.started", "gateway", "local")
	agent := w.startAgent(nil)
	host := awaitEvent(t, file, "host.registered", "task", "task-1", "renewed", false)
	if !strings.HasPrefix(host["agent"].(string), "SHA256:") || !strings.HasPrefix(host["host_key"].(string), "SHA256:") {
		t.Errorf("keys of the host: %v", host)
	}

	// A command, whose text is nobody's business.
	cmd := w.command("ssh", w.target(), "cat; echo treasure; exit 3")
	cmd.Stdin = strings.NewReader("12345")
	if out, err := cmd.CombinedOutput(); exitCode(err) != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	left := awaitEvent(t, file, "guest.left", "task", "task-1", "identity", "alice", "from_guest", 5.0, "from_host", 14.0)
	conn := left["conn"]
	key := fingerprint(w.key)
	in := awaitEvent(t, file, "guest.signed_in", "conn", conn, "key", key, "method", "publickey", "user", "task-1")
	if !strings.HasPrefix(in["remote"].(string), "127.0.0.1:") || !strings.HasPrefix(in["client"].(string), "SSH-2.0-OpenSSH") {
		t.Errorf("the guest: %v", in)
	}
	awaitEvent(t, file, "session.started", "conn", conn, "kind", "exec", "pty", false)
	awaitEvent(t, file, "session.ended", "conn", conn, "kind", "exec", "exit_status", 3.0, "from_guest", 5.0, "from_host", 14.0)
	if strings.Contains(read(t, file), "treasure") {
		t.Error("a command is in the audit stream")
	}

	// A signal, a terminal, a transfer and a forwarded connection.
	fails(t, w.command("ssh", w.target(), "kill -KILL $$"))
	awaitEvent(t, file, "session.ended", "exit_signal", "KILL")
	mustRun(t, w.command("ssh", "-tt", w.target(), "true"))
	awaitEvent(t, file, "session.started", "kind", "exec", "pty", true)
	mustDo(t, os.WriteFile(filepath.Join(w.home, "secret-name"), make([]byte, 100_000), 0o600))
	mustRun(t, w.command("scp", w.target()+":secret-name", filepath.Join(w.dir, "copy")))
	ended := awaitEvent(t, file, "session.ended", "kind", "subsystem", "subsystem", "sftp")
	if n := ended["from_host"].(float64); n < 100_000 {
		t.Errorf("the transfer: %v", ended)
	}
	echo := testenv.Listen(t)
	go greet(echo)
	if out := mustRun(t, w.command("ssh", "-W", echo.Addr().String(), w.target())); out != "hello" {
		t.Errorf("through the forwarding came %q", out)
	}
	awaitEvent(t, file, "forward.opened", "type", "direct-tcpip", "from", "guest", "target", echo.Addr().String())
	awaitEvent(t, file, "forward.closed", "type", "direct-tcpip", "from_host", 5.0)

	// A stranger.
	alice, mallory := w.key, testenv.NewKey(t, w.dir, "mallory")
	w.key = mallory
	fails(t, w.command("ssh", w.target(), "true"))
	w.key = alice
	refused := awaitEvent(t, file, "guest.refused", "user", "task-1", "result", "denied")
	if offered, _ := refused["offered"].([]any); len(offered) != 1 || offered[0] != fingerprint(mallory) {
		t.Errorf("the stranger: %v", refused)
	}

	resp, err := http.Get("http://" + w.private + "/metrics")
	mustDo(t, err)
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	mustDo(t, err)
	if !strings.Contains(string(metrics), "\nstagedoor_audit_events_lost_total 0\n") {
		t.Errorf("events were lost, or no metric says that none were")
	}

	// The file is moved away.
	mustDo(t, os.Rename(file, file+".1"))
	w.gateway.cmd.Process.Signal(syscall.SIGHUP)
	poll(t, func() bool { _, err := os.Stat(file); return err == nil }, func() string { return "no new file" })
	agent.cmd.Process.Signal(syscall.SIGTERM)
	awaitEvent(t, file, "host.ended", "task", "task-1", "agent", host["agent"], "conn", host["conn"])
	w.gateway.cmd.Process.Signal(syscall.SIGTERM)
	<-w.gateway.done
	if all := events(t, file); !all[len(all)-1].is("gateway.ended") {
		t.Errorf("the last event: %v", all[len(all)-1])
	}
}

// greet says hello to each connection.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Write([]byte("hello"))
		c.Close()
	}
}

// TestAuditJump reads of jumps, and of one that was refused, in the audit stream.
func TestAuditJump(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, "audit:", "  file: "+file)
	w.startAgent(nil)
	tunnelled := func(to string) []string {
		return []string{"-W", to + ":22", "-l", "somebody", "127.0.0.1"}
	}
	cmd := w.command("ssh", tunnelled("task-1")...)
	cmd.Stdin = strings.NewReader("SSH-2.0-nobody\r\n")
	cmd.Run() // the agent hangs up
	opened := awaitEvent(t, file, "jump.opened", "task", "task-1", "identity", "alice", "key", fingerprint(w.key))
	closed := awaitEvent(t, file, "jump.closed", "task", "task-1", "conn", opened["conn"], "from_guest", 16.0)
	if closed["from_host"].(float64) < 20 {
		t.Errorf("the jump: %v", closed)
	}
	fails(t, w.command("ssh", tunnelled("task-2")...))
	awaitEvent(t, file, "jump.refused", "task", "task-2")
}
