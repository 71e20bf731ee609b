package gateway_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// jumper is the real client with a configuration in which the host gw is the
// gateway and tasks are reached through it.
type jumper struct {
	w      *world
	config string
}

// newJumper writes a configuration: the lines of extra come first. The host keys
// of tasks, by name, are known.
func (w *world) newJumper(hostKeys map[string]ssh.PublicKey, extra ...string) *jumper {
	w.t.Helper()
	host, port, _ := net.SplitHostPort(w.ssh)
	known := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(w.hostKey.PublicKey()))
	for name, key := range hostKeys {
		known += fmt.Sprintf("%s %s", name, ssh.MarshalAuthorizedKey(key))
	}
	dir := w.t.TempDir()
	j := &jumper{w: w, config: filepath.Join(dir, "config")}
	text := strings.Join(extra, "\n") + fmt.Sprintf(`
Host gw
  HostName %s
  Port %s
Host *
  BatchMode yes
  StrictHostKeyChecking yes
  UserKnownHostsFile %s
  GlobalKnownHostsFile none
  IdentityAgent none
  ConnectTimeout 20
  LogLevel ERROR
`, host, port, filepath.Join(dir, "known_hosts"))
	for file, content := range map[string]string{j.config: text, filepath.Join(dir, "known_hosts"): known} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return j
}

func (j *jumper) command(args ...string) *exec.Cmd {
	j.w.t.Helper()
	return exec.CommandContext(j.w.t.Context(), testenv.Need(j.w.t, "ssh"), append([]string{"-F", j.config}, args...)...)
}

// startJumpAgent starts an agent that takes end-to-end guests only, and returns
// its host key.
func (w *world) startJumpAgent(task string, keys ...testenv.Key) (*runningAgent, ssh.PublicKey) {
	w.t.Helper()
	hostKey := testenv.Signer(w.t)
	a := w.startAgent(w.token(task, time.Now(), keys...), func(a *agent.Agent) {
		a.EndToEndOnly = true
		a.HostKey = hostKey
	})
	return a, hostKey.PublicKey()
}

// TestJump goes end to end with whatever user name the jump hop gets.
func TestJump(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	_, hostKey := w.startJumpAgent("task-1", k)
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey}, "IdentityFile "+k.File)
	for _, user := range []string{"", "task-1@", "Task-1@", "alice@", "no-such-task@", "root@corp@", "ALICE.SMITH+x@"} {
		cmd := j.command("-J", user+"gw", "task-1", "echo out; echo err >&2; cat; exit 7")
		cmd.Stdin = strings.NewReader("in\n")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("as %q: %v, want exit status 7", user, err)
		}
		for _, want := range []string{"out\n", "err\n", "in\n"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("as %q: output %q lacks %q", user, out, want)
			}
		}
	}
	eventually(t, "both ends of a jump are logged", func() bool {
		log := w.log.String()
		return strings.Count(log, `msg="jump began"`) == 7 && strings.Count(log, `msg="jump ended"`) == 7 &&
			strings.Count(log, "task=task-1 identity=alice") >= 14
	})
}

// TestJumpByProxyCommand: what -J does, spelled out.
func TestJumpByProxyCommand(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	_, hostKey := w.startJumpAgent("task-1", k)
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey}, "IdentityFile "+k.File)
	proxy := fmt.Sprintf("ProxyCommand=ssh -F %s -W %%h:%%p gw", j.config)
	if out, err := j.command("-o", proxy, "task-1", "echo fine").CombinedOutput(); err != nil || string(out) != "fine\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// TestJumpByDomain: tasks under the gateway's own name, as ssh-config has it.
func TestJumpByDomain(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Address = "Terminal.Example.com:22" })
	k := testenv.NewKey(t, w.dir, "alice")
	_, hostKey := w.startJumpAgent("task-1", k)
	j := w.newJumper(map[string]ssh.PublicKey{"task-1.terminal.example.com": hostKey},
		"IdentityFile "+k.File, "Host *.terminal.example.com", `ProxyJump "%n"@gw`)
	for _, name := range []string{"task-1.terminal.example.com", "TASK-1.terminal.example.com"} {
		if out, err := j.command("-v", name, "echo fine").Output(); err != nil || string(out) != "fine\n" {
			t.Errorf("%s: %v: %q", name, err, out)
		}
	}
	if !strings.Contains(w.log.String(), `msg="guest signed in" task=task-1`) {
		t.Error("the full name as a user name was not taken for the task")
	}
}

// TestJumpWithTheRightKey: of the keys in an ssh-agent the one that opens the task
// is found, whatever is offered first, when the jump hop is told the task.
func TestJumpWithTheRightKey(t *testing.T) {
	w := newWorld(t)
	other, mine, useless := testenv.NewKey(t, w.dir, "other"), testenv.NewKey(t, w.dir, "mine"), testenv.NewKey(t, w.dir, "useless")
	_, hostKey := w.startJumpAgent("task-1", mine)
	_, otherHostKey := w.startJumpAgent("task-2", other)
	socket := startSSHAgent(t, useless, other, mine)
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey, "task-2": otherHostKey}, "IdentityFile none", "IdentityAgent "+socket)
	for _, task := range []string{"task-1", "task-2"} {
		out, err := j.command("-J", "%n@gw", task, "echo $STAGEDOOR_TASK").CombinedOutput()
		if err != nil || string(out) != task+"\n" {
			t.Errorf("%s: %v: %q", task, err, out)
		}
	}
	// By a name that is no task: the first key that opens any.
	out, err := j.command("-J", "gw", "task-2", "echo $STAGEDOOR_TASK").CombinedOutput()
	if err != nil || string(out) != "task-2\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// startSSHAgent runs the real ssh-agent with some keys in it.
func startSSHAgent(t *testing.T, keys ...testenv.Key) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent")
	cmd := exec.CommandContext(t.Context(), testenv.Need(t, "ssh-agent"), "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	testenv.DialEventually(t, "unix", socket).Close()
	for _, k := range keys {
		add := exec.Command(testenv.Need(t, "ssh-add"), "-q", k.File)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("ssh-add: %v: %s", err, out)
		}
	}
	return socket
}

// TestJumpRefusals: whatever is the matter with a task, the words are the same.
func TestJumpRefusals(t *testing.T) {
	w := newWorld(t)
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	w.startJumpAgent("task-1", alice)
	w.startJumpAgent("task-2", bob)
	c := w.mustDial("Some Body", alice)
	refusal := func(target string) string {
		t.Helper()
		conn, err := c.Dial("tcp", target)
		if err == nil {
			conn.Close()
			t.Fatalf("a jump to %s was let through", target)
		}
		return err.Error()
	}
	want := refusal("task-2:22")
	for _, target := range []string{"task-3:22", "not_a-task!:22", "127.0.0.1:22", "[::1]:22", "task-1.example.org:22"} {
		if got := refusal(target); got != want {
			t.Errorf("%s: %q, want %q as for a task that does not let the key in", target, got, want)
		}
	}
	if !strings.Contains(want, "administratively prohibited") {
		t.Errorf("the reason: %q", want)
	}
	for _, target := range []string{"task-1:23", "task-2:23", "127.0.0.1:80"} {
		if got := refusal(target); !strings.Contains(got, "only port 22 of a task") {
			t.Errorf("%s: %q", target, got)
		}
	}
	conn, err := c.Dial("tcp", "task-1:22")
	if err != nil {
		t.Fatalf("the task that the key opens: %v", err)
	}
	conn.Close()
	if _, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("somebody who may only jump listens")
	}
	if _, err := c.Dial("unix", "/tmp/socket"); err == nil {
		t.Error("somebody who may only jump reached a socket")
	}
}

// TestJumpWithSeveralKeys: the first key that opens anything signs in. Who is then
// refused learns which one it was, and how to have another one tried: in the same
// words whether there is such a task or not.
func TestJumpWithSeveralKeys(t *testing.T) {
	w := newWorld(t)
	one, two := testenv.NewKey(t, w.dir, "one"), testenv.NewKey(t, w.dir, "two")
	_, hostKey := w.startJumpAgent("task-1", one)
	w.startJumpAgent("task-2", two)
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey}, "IdentityFile "+two.File, "IdentityFile "+one.File, "LogLevel INFO")
	var told []string
	for _, task := range []string{"task-1", "task-9"} {
		out, err := j.command("-J", "gw", task, "true").CombinedOutput()
		if err == nil {
			t.Errorf("%s was entered", task)
		}
		told = append(told, strings.ReplaceAll(string(out), task, "TASK"))
	}
	want := "you signed in with " + ssh.FingerprintSHA256(two.Signer.PublicKey()) + "; if another key opens it: ssh -J TASK@" + w.ssh + " TASK"
	if !strings.Contains(told[0], want) || !strings.Contains(told[1], want) {
		t.Errorf("%q\nlacks %q", told, want)
	}
	if out, err := j.command("-J", "task-1@gw", "task-1", "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("as told: %v: %q", err, out)
	}
}

// TestJumpWithNoKey: ssh gives its local user's name to the jump hop. A guest who
// never typed it reads it, and that it is not to blame.
func TestJumpWithNoKey(t *testing.T) {
	w := newWorld(t)
	k, stranger := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "stranger")
	w.startJumpAgent("task-1", k)
	j := w.newJumper(nil, "IdentityFile "+stranger.File, "BatchMode no", "LogLevel INFO")
	for _, user := range []string{"bob", "task-1"} {
		out, _ := j.command("-J", user+"@gw", "task-1", "true").CombinedOutput()
		for _, want := range []string{fmt.Sprintf("opens a task named %q:", user), "With ssh -J the name does not matter, the keys do."} {
			if !strings.Contains(string(out), want) {
				t.Errorf("as %s: %q lacks %q", user, out, want)
			}
		}
	}
	long := strings.Repeat("x", 300) + "\x1b[2J"
	var told string
	w.dial(long, ssh.PublicKeys(stranger.Signer), ssh.KeyboardInteractive(func(_, text string, _ []string, _ []bool) ([]string, error) {
		told += text
		return nil, nil
	}))
	if !strings.Contains(told, fmt.Sprintf("%q:", long[:64])) || strings.ContainsRune(told, 0x1b) {
		t.Errorf("%q", told)
	}
}

// TestEndToEndOnlyIsExplained: who asks for a host that only takes end-to-end
// guests reads where the command is, and whether the key will do there.
func TestEndToEndOnlyIsExplained(t *testing.T) {
	dir := t.TempDir()
	granted, operator := testenv.NewKey(t, dir, "granted"), testenv.NewKey(t, dir, "operator")
	w := newWorld(t, withOperatorKeys(t, operator.Line+"\n"))
	w.startJumpAgent("task-1", granted)
	for _, test := range []struct {
		key testenv.Key
		ask bool
	}{{granted, false}, {operator, true}} {
		out, err := w.sshCommand("task-1", test.key, "true").CombinedOutput()
		for _, want := range []string{"takes end-to-end connections only: ssh -J task-1@" + w.ssh + " task-1\r\n", "The job's log has this command with the host's key"} {
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("%v: %q lacks %q", err, out, want)
			}
		}
		if asked := strings.Contains(string(out), "only keys in the job's token count, and yours is not among them"); asked != test.ask {
			t.Errorf("%q: is told to ask: %v, want %v", out, asked, test.ask)
		}
	}
}

// TestSessionWithoutTask: who is signed in for no task is told so.
func TestSessionWithoutTask(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startJumpAgent("task-1", k)
	out, err := w.sshCommand("task-9", k, "true").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 255 {
		t.Errorf("%v, want exit status 255", err)
	}
	for _, want := range []string{`"task-9"`, "no task of this name is open to your key", "ssh -J " + w.ssh + " TASK"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
}

func withHostKey(key ssh.Signer) func(*agent.Agent) {
	return func(a *agent.Agent) { a.HostKey = key }
}
