package e2e

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway"
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
	deadline := time.After(testenv.Patience)
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
	t.Parallel()
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
	if out, err := cmd.CombinedOutput(); testenv.ExitCode(err) != 3 {
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
	w.gateway.Cmd.Process.Signal(syscall.SIGHUP)
	poll(t, func() bool { _, err := os.Stat(file); return err == nil }, func() string { return "no new file" })
	agent.Cmd.Process.Signal(syscall.SIGTERM)
	awaitEvent(t, file, "host.ended", "task", "task-1", "agent", host["agent"], "conn", host["conn"])
	w.gateway.Cmd.Process.Signal(syscall.SIGTERM)
	w.gateway.Wait()
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

// admin runs a command that asks the gateway.
func (w *world) admin(args ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := contextFor(w.t)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "stagedoor"), append(args, "--config", w.config)...)
	cmd.Env = append(os.Environ(), "SUDO_USER=olivia")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) mustAdmin(args ...string) string {
	w.t.Helper()
	out, err := w.admin(args...)
	if err != nil {
		w.t.Fatalf("stagedoor %q: %v\n%s", args, err, out)
	}
	return out
}

// enter starts a session that lasts, and returns when its program runs.
func (w *world) enter(args ...string) *testenv.Process {
	w.t.Helper()
	p := testenv.StartClient(w.t, w.command("ssh", append(args, w.target(), "echo in; exec sleep 600")...))
	p.WaitFor("in")
	return p
}

// guests is what `stagedoor who --json` prints.
func (w *world) guests(args ...string) []gateway.GuestStatus {
	w.t.Helper()
	var all []gateway.GuestStatus
	mustDo(w.t, json.Unmarshal([]byte(w.mustAdmin(append([]string{"who", "--json"}, args...)...)), &all))
	return all
}

// TestWho lists tasks and guests.
func TestWho(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if out := w.mustAdmin("ls"); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "TASK ") {
		t.Errorf("without a task, ls prints\n%s", out)
	}
	w.startAgent(nil)
	w.enter("-tt")
	line := regexp.MustCompile(`(?m)^task-1 +127\.0\.0\.1:\d+ +\d+s +1 +attached +- +-$`)
	poll(t, func() bool { return line.MatchString(w.mustAdmin("ls")) }, func() string { return "ls prints\n" + w.mustAdmin("ls") })
	out := w.mustAdmin("who")
	if !regexp.MustCompile(`(?m)^[0-9a-f]{8} +task-1 +alice +127\.0\.0\.1:\d+ +\d+s +exec +SHA256:\S{43}$`).MatchString(out) {
		t.Errorf("who prints\n%s", out)
	}
	in := w.guests("task-1")
	if len(in) != 1 || in[0].Key != fingerprint(w.key) || in[0].Method != "publickey" || in[0].FromHost == 0 || len(in[0].Doing) != 1 {
		t.Errorf("who --json prints %+v", in)
	}
	if in := w.guests("task-2"); len(in) != 0 {
		t.Errorf("in another task are %+v", in)
	}
	socket := filepath.Join(w.dir, "state", "admin.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	w.gateway.Cmd.Process.Signal(syscall.SIGTERM)
	w.gateway.WaitFor("drain") // or the second could be one with the first
	w.gateway.Cmd.Process.Signal(syscall.SIGTERM)
	w.gateway.Wait()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
	if out, err := w.admin("ls"); testenv.ExitCode(err) != 1 || !strings.Contains(out, "no gateway answers") {
		t.Errorf("without a gateway: %v, %s", err, out)
	}
}

// TestKickGuest ends one connection, which is told why, and leaves another.
func TestKickGuest(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, "audit:", "  file: "+file)
	w.startAgent(nil)
	first := w.enter("-tt")
	conn := w.guests()[0].Conn
	second := w.enter()
	if out := w.mustAdmin("kick", "--conn", conn, "--reason", "the build\x1b[2J restarts"); out != "ended 1 connection of guests and 0 tunnels of hosts\n" {
		t.Errorf("kick prints %q", out)
	}
	if status := first.Wait(); status != 255 {
		t.Errorf("ssh ended with %d", status)
	}
	const why = "an operator ended your connection: the build"
	if text := first.Output.String(); !strings.Contains(text, "\r\nstagedoor: "+why+" [2J restarts\r\n") {
		t.Errorf("the guest was told %q", text)
	}
	left := awaitEvent(t, file, "guest.left", "conn", conn)
	if !strings.HasPrefix(left["reason"].(string), why) {
		t.Errorf("it left because of %v", left["reason"])
	}
	awaitEvent(t, file, "admin.kicked", "on_conn", conn, "by", "olivia", "guests", 1.0)
	if in := w.guests(); len(in) != 1 || in[0].Conn == conn {
		t.Errorf("in are %+v", in)
	}
	w.mustAdmin("kick", "--identity", "Alice")
	if status := second.Wait(); status != 255 || !strings.Contains(second.Output.String(), "an operator ended your connection") {
		t.Errorf("ssh ended with %d: %s", status, second.Output.String())
	}
	if out, err := w.admin("kick", "--conn", conn); testenv.ExitCode(err) != 1 || !strings.Contains(out, "nobody") {
		t.Errorf("kicked twice: %v, %s", err, out)
	}
	if out := w.run("echo back"); out != "back\n" {
		t.Errorf("the guest does not come back: %s", out)
	}
}

// TestKickTask ends a task. Its agent stays out, also after a restart of the
// gateway, and another one with a newer token comes in.
func TestKickTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "limits:", "  host_grace: 10m") // in which its guests would wait
	old := []string{"STAGEDOOR_TOKEN=" + w.token()}
	agent := w.startAgent(old)
	guest := w.enter()
	if out := w.mustAdmin("kick", "--task", "task-1", "--reason", "out of hours"); out != "ended 1 connection of guests and 1 tunnel of hosts\n" {
		t.Errorf("kick prints %q", out)
	}
	poll(t, func() bool { return !strings.Contains(w.mustAdmin("ls"), "task-1") }, func() string { return "the task is still listed" })
	if guest.Wait() != 255 || !strings.Contains(guest.Output.String(), "an operator ended task task-1, and with it your connection: out of hours") {
		t.Errorf("the guest was told %s", guest.Output.String())
	}
	if status := agent.Wait(); status != 6 || !strings.Contains(agent.Output.String(), "has ended task task-1: out of hours") {
		t.Errorf("the agent ended with %d: %s", status, agent.Output.String())
	}
	w.gateway.Cmd.Process.Signal(syscall.SIGTERM)
	w.gateway.Wait()
	w.gateway = w.startGateway()
	refused := spawn(t, append([]string{"STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + w.ca}, old...), "stagedoor-agent", "connect", "--dir", w.home)
	if status := refused.Wait(); status != 6 {
		t.Errorf("with the old token: %d, %s", status, refused.Output.String())
	}
	poll(t, func() bool { return time.Now().Unix() > tokenTime(t, old[0]) }, // tokens are told apart by the second
		func() string { return "the clock stands still" })
	w.startAgent(nil)
	if out := w.run("echo in"); out != "in\n" {
		t.Errorf("with a newer token: %s", out)
	}
}

// tokenTime is when a token was issued.
func tokenTime(t *testing.T, token string) int64 {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	mustDo(t, err)
	var claims struct {
		Iat int64 `json:"iat"`
	}
	mustDo(t, json.Unmarshal(payload, &claims))
	return claims.Iat
}

// TestBlockGuest refuses a key until it is taken back, also after a restart.
func TestBlockGuest(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, "audit:", "  file: "+file)
	w.startAgent(nil)
	guest := w.enter()
	out := w.mustAdmin("block", "--key", w.key.File+".pub", "--for", "1h", "--reason", "lost laptop")
	if out != "blocked; ended 1 connection of guests and 0 tunnels of hosts\n" {
		t.Errorf("block prints %q", out)
	}
	if guest.Wait() != 255 || !strings.Contains(guest.Output.String(), "an operator has blocked you: lost laptop") {
		t.Errorf("the guest was told %s", guest.Output.String())
	}
	blocked := awaitEvent(t, file, "admin.blocked", "on_key", fingerprint(w.key), "by", "olivia", "reason", "lost laptop", "guests", 1.0)
	if blocked["until"] == nil {
		t.Errorf("no end: %v", blocked)
	}
	refused := func() {
		t.Helper()
		for _, args := range [][]string{{w.target(), "true"}, {"-W", "task-1:22", "-l", "somebody", "127.0.0.1"}} {
			if text := fails(t, w.command("ssh", args...)); strings.Contains(text, "block") {
				t.Errorf("a guest who is refused learns %q", text)
			}
		}
	}
	refused()
	refusal := awaitEvent(t, file, "guest.refused", "user", "task-1")
	if reason := refusal["reason"].(string); !strings.Contains(reason, "lost laptop") && !strings.Contains(reason, "no key that was offered") {
		t.Errorf("the audit stream says %s", reason)
	}
	w.gateway.Cmd.Process.Signal(syscall.SIGTERM)
	w.gateway.Wait()
	w.gateway = w.startGateway()
	poll(t, func() bool { return strings.Contains(w.mustAdmin("ls"), "task-1") }, func() string { return "the agent does not come back" })
	refused()
	out = w.mustAdmin("block")
	if !regexp.MustCompile(`(?m)^key ` + regexp.QuoteMeta(fingerprint(w.key)) + ` .* in (1h0m|59m\d+s) +olivia +lost laptop$`).MatchString(out) {
		t.Errorf("block lists\n%s", out)
	}
	w.mustAdmin("unblock", "--key", fingerprint(w.key))
	awaitEvent(t, file, "admin.unblocked", "on_key", fingerprint(w.key))
	if out := w.run("echo back"); out != "back\n" {
		t.Errorf("the guest does not come back: %s", out)
	}
	if out, err := w.admin("unblock", "--key", fingerprint(w.key)); testenv.ExitCode(err) != 1 || !strings.Contains(out, "no such block") {
		t.Errorf("unblocked twice: %v, %s", err, out)
	}
}

// TestBlockIdentityAndTask refuses a name, whatever its key, and a task.
func TestBlockIdentityAndTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	w.mustAdmin("block", "--identity", "ALICE")
	fails(t, w.command("ssh", w.target(), "true"))
	jump := []string{"-W", "task-1:22", "-l", "somebody", "127.0.0.1"}
	fails(t, w.command("ssh", jump...))
	w.mustAdmin("unblock", "--identity", "alice")
	w.run("true")

	w.mustAdmin("block", "--task", "task-1", "--reason", "incident 7")
	fails(t, w.command("ssh", w.target(), "true"))
	newer := spawn(t, []string{"STAGEDOOR_TOKEN=" + w.token(), "STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + w.ca},
		"stagedoor-agent", "connect", "--dir", w.home)
	if status := newer.Wait(); status != 6 || !strings.Contains(newer.Output.String(), "has blocked task task-1: incident 7") {
		t.Errorf("the agent ended with %d: %s", status, newer.Output.String())
	}
	w.mustAdmin("unblock", "--task", "task-1")
	w.startAgent(nil)
	w.run("true")
}

// TestExplain asks why somebody would or would not get in, and compares with what
// ssh finds.
func TestExplain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	oscar := testenv.NewKey(t, dir, "oscar")
	operators := lines(t, `from="192.0.2.0/24",no-pty,command="uptime" `+oscar.Line)
	w := newWorld(t, "guests:", "  authorized_keys: ["+operators+"]", "  permissions: [pty, exec, sftp]")
	explain := func(status int, args []string, want ...string) {
		t.Helper()
		out, err := w.admin(append([]string{"explain"}, args...)...)
		if testenv.ExitCode(err) != status {
			t.Errorf("explain %q: %v, want status %d\n%s", args, err, status, out)
		}
		for _, want := range want {
			if !regexp.MustCompile("(?m)^" + want + "$").MatchString(out) {
				t.Errorf("explain %q lacks %s:\n%s", args, want, out)
			}
		}
	}
	alice := []string{"--task", "task-1", "--key", w.key.File + ".pub"}
	explain(1, alice, "no    task task-1 is not registered: .*", "no    keys in the task's grant: .*", "", "Not let into task-1.")
	if out, err := w.admin("explain", "--task", "task-1", "--key", fingerprint(w.key)); testenv.ExitCode(err) != 1 || !strings.Contains(out, "give its .pub file") {
		t.Errorf("an unknown fingerprint: %v, %s", err, out)
	}

	w.startAgent(nil)
	print := regexp.QuoteMeta(fingerprint(w.key))
	explain(0, alice, `yes   the key \(ssh-ed25519 `+print+`\) is of a kind that is taken`,
		`note  the key, or its authority, is in the grants of these tasks: task-1`,
		`note  no address was given .*`,
		`yes   task task-1 is registered: its agent at 127.0.0.1:\d+ is connected for \d+s`,
		`yes   keys in the task's grant: lets the key in as "alice"`,
		`no    `+regexp.QuoteMeta(operators)+`: key is not authorized`,
		`Let into task-1 as "alice".`, `May: exec, pty, sftp`)
	explain(0, []string{"--task", "TASK-1", "--key", fingerprint(w.key), "--from", "127.0.0.1"}, `yes   connections from 127.0.0.1 are taken`)
	w.run("true")

	// Restrictions of an operator's key.
	explain(1, []string{"--task", "task-1", "--key", oscar.File + ".pub", "--from", "127.0.0.1"},
		`no    keys in the task's grant: .*`, `no    `+regexp.QuoteMeta(operators+":1")+`?.*`, "Not let into task-1.")
	explain(0, []string{"--task", "task-1", "--key", oscar.File + ".pub", "--from", "192.0.2.7"},
		`yes   `+regexp.QuoteMeta(operators)+`: lets the key in as "oscar"`, `Let into task-1 as "oscar".`, `May: exec, sftp`,
		`Runs only: uptime`)
	explain(1, []string{"--task", "task-2", "--key", oscar.File + ".pub", "--from", "192.0.2.7"},
		`Would be let into task-2 as "oscar" once it is connected.`)

	// Blocks, of each kind.
	for _, c := range []struct {
		block []string
		want  string
	}{
		{[]string{"--identity", "alice"}, `no    the name "alice" is blocked by an operator since .* \(olivia\): because`},
		{[]string{"--key", fingerprint(w.key)}, `no    the key is blocked by an operator since .* \(olivia\): because`},
		{[]string{"--task", "task-1"}, `no    task task-1 is blocked by an operator since .* \(olivia\): because`},
	} {
		w.mustAdmin(append([]string{"block", "--reason", "because"}, c.block...)...)
		explain(1, alice, c.want, "Not let into task-1.")
		w.mustAdmin(append([]string{"unblock"}, c.block...)...)
	}
	var e gateway.Explanation
	out, err := w.admin(append([]string{"explain", "--json"}, alice...)...)
	if json.Unmarshal([]byte(out), &e) != nil || testenv.ExitCode(err) != 1 || len(e.Steps) == 0 {
		t.Errorf("--json: %v\n%s", err, out)
	}
}

// TestAuditRefusals reads in the audit stream of what was not allowed.
func TestAuditRefusals(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, "audit:", "  file: "+file, "guests:", "  permissions: [pty, exec, sftp]")
	stranger := spawn(t, []string{"STAGEDOOR_TOKEN=" + w.token("--audience", "another"), "STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + w.ca},
		"stagedoor-agent", "connect", "--dir", w.home)
	stranger.Wait()
	refused := awaitEvent(t, file, "host.refused", "task", "task-1", "result", "bad-token")
	if refused["reason"] == "" {
		t.Errorf("the host: %v", refused)
	}
	w.startAgent(nil)
	fails(t, w.command("ssh", "-W", "127.0.0.1:1", w.target()))
	awaitEvent(t, file, "guest.denied", "task", "task-1", "what", "refused a channel", "type", "direct-tcpip", "from", "guest")
	nc, err := net.Dial("tcp", w.ssh)
	mustDo(t, err)
	nc.Close()
	awaitEvent(t, file, "guest.refused", "result", "failed")
}

// TestAuditJump reads of jumps, and of one that was refused, in the audit stream.
func TestAuditJump(t *testing.T) {
	t.Parallel()
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
