package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// jumpWorld is a gateway with a name, and what its address looks like in a
// command.
func jumpWorld(t *testing.T) (w *world, gateway string) {
	t.Helper()
	w = newWorldAt(t, "localhost")
	_, port, _ := strings.Cut(w.ssh, ":")
	return w, "localhost:" + port
}

// TestJumpAsTyped: ssh -J GATEWAY TASK works with whatever names the hops are
// given, whoever is logged in here.
func TestJumpAsTyped(t *testing.T) {
	t.Parallel()
	w, gateway := jumpWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent(nil, "--host-key", hostKey.File)
	host := publicKey(t, hostKey)
	known := []string{knownHost(gateway, w.hostKey), knownHost("task-1", host), knownHost("task-1.localhost", host)}
	l := newLaptop(t, w.key, known)
	for _, command := range []string{
		"ssh -J " + gateway + " task-1",
		"ssh -J " + gateway + " TASK-1",
		"ssh -J " + gateway + " task-1.localhost",
		"ssh -J " + gateway + " -l deploy task-1",
		"ssh -J no-task@" + gateway + " task-1",
		"ssh -J first.last@" + gateway + " task-1",
		"ssh -J 'DOMAIN\\user'@" + gateway + " task-1",
		"ssh -J task-1@" + gateway + " task-1",
		"ssh -J task-1.localhost@" + gateway + " task-1@task-1",
		"ssh -o ProxyCommand='ssh -W %h:%p -p " + strings.TrimPrefix(gateway, "localhost:") + " localhost' task-1",
	} {
		t.Run(command, func(t *testing.T) {
			l := l.in(t)
			if got := mustRun(t, l.typed(command+" 'echo $STAGEDOOR_TASK; exit 0'")); got != "task-1\n" {
				t.Errorf("output %q", got)
			}
		})
	}
	for _, command := range []string{
		"ssh -J " + gateway + " task-2",
		"ssh -J " + gateway + " -p 80 task-1",
		"ssh -J task-2@" + gateway + " localhost",
	} {
		t.Run("not "+command, func(t *testing.T) {
			l := l.in(t)
			out := fails(t, l.typed(command+" true"))
			if !strings.Contains(out, "administratively prohibited") {
				t.Errorf("other words: %s", out)
			}
		})
	}
}

// TestJumpWithAgent: of several keys in an ssh-agent each hop takes the one that
// opens the task, without being told which.
func TestJumpWithAgent(t *testing.T) {
	t.Parallel()
	w, gateway := jumpWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent(nil, "--host-key", hostKey.File)
	dir := t.TempDir()
	socket := startSSHAgent(t,
		keygen(t, dir, "one", "-t", "ed25519"), keygen(t, dir, "two", "-t", "rsa"), w.key, keygen(t, dir, "three", "-t", "ecdsa"))
	l := newLaptop(t, w.key, []string{knownHost(gateway, w.hostKey), knownHost("task-1", publicKey(t, hostKey))},
		"IdentitiesOnly no", "IdentityAgent "+socket, "IdentityFile none")
	if got := mustRun(t, l.typed("ssh -J "+gateway+" task-1 echo in")); got != "in\n" {
		t.Errorf("output %q", got)
	}
	if got := mustRun(t, l.typed("ssh -J task-1@"+gateway+" task-1 echo in")); got != "in\n" {
		t.Errorf("output %q", got)
	}
}

// startSSHAgent runs an ssh-agent with keys in it.
func startSSHAgent(t *testing.T, keys ...testenv.Key) (path string) {
	t.Helper()
	path = socket(t)
	testenv.StartClient(t, exec.Command(testenv.Need(t, "ssh-agent"), "-D", "-a", path))
	dial(t, path).Close()
	for _, key := range keys {
		add := exec.CommandContext(t.Context(), testenv.Need(t, "ssh-add"), "-q", key.File)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+path)
		mustRun(t, add)
	}
	return path
}

// endToEndCommand is what an agent prints for guests to paste.
func endToEndCommand(t *testing.T, agent *testenv.Process) string {
	t.Helper()
	agent.WaitFor("KnownHostsCommand=")
	command := regexp.MustCompile(`(?m)^\s*(ssh -J .*)$`).FindStringSubmatch(agent.Output.String())
	if command == nil {
		t.Fatalf("no command in:\n%s", agent.Output.String())
	}
	return command[1]
}

// TestPastedCommand: the command of the job's log enters without a question,
// also where an older job of that name is remembered.
func TestPastedCommand(t *testing.T) {
	t.Parallel()
	w, gateway := jumpWorld(t)
	command := endToEndCommand(t, w.startAgent(nil))
	older := knownHost("task-1", publicKey(t, keygen(t, t.TempDir(), "older", "-t", "ed25519")))
	for name, known := range map[string][]string{"first time": nil, "older job": {older}} {
		t.Run(name, func(t *testing.T) {
			l := newLaptop(t, w.key, append(known, knownHost(gateway, w.hostKey)))
			if got := mustRun(t, l.typed(command+" echo in")); got != "in\n" {
				t.Errorf("output %q", got)
			}
			if data, err := os.ReadFile(l.known); err != nil || strings.Count(string(data), "\n") != len(known)+1 {
				t.Errorf("known_hosts was written: %v\n%s", err, data)
			}
		})
	}
}

// TestEndToEndOnly: not even the gateway's operator enters. Who tries is told
// what to type instead.
func TestEndToEndOnly(t *testing.T) {
	t.Parallel()
	w, gateway := jumpWorld(t)
	agent := spawn(t, []string{
		"STAGEDOOR_TOKEN=" + w.token(), "STAGEDOOR_GATEWAY=" + w.https, "SSL_CERT_FILE=" + w.ca, "SHELL=/bin/bash", "HOME=" + w.dir,
	}, "stagedoor-agent", "connect", "--dir", w.home, "--end-to-end-only")
	command := endToEndCommand(t, agent)
	l := newLaptop(t, w.key, []string{knownHost(gateway, w.hostKey)})
	if got := mustRun(t, l.typed(command+" echo in")); got != "in\n" {
		t.Errorf("output %q", got)
	}
	out := fails(t, w.command("ssh", w.target(), "touch "+filepath.Join(w.home, "entered")))
	if !strings.Contains(out, "ssh -J ") || !strings.Contains(out, "task-1") {
		t.Errorf("a guest of the gateway is told %q", out)
	}
	if _, err := os.Stat(filepath.Join(w.home, "entered")); err == nil {
		t.Error("the command ran")
	}
}
