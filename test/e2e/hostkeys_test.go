package e2e

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestHostKeyRotation: guests learn the gateway's next host key while the present
// one is in use, without a question, and forget the one that is no longer. What a
// host announces they never see.
func TestHostKeyRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	next := keygen(t, w.dir, "next", "-t", "ed25519")
	l := newLaptop(t, w.key, []string{knownHost(w.ssh, w.hostKey)}, "UpdateHostKeys yes")
	_, port, _ := strings.Cut(w.ssh, ":")
	old, coming := base64Key(w.hostKey), base64Key(publicKey(t, next))

	w.reconfigure("ssh:", "ssh:\n  next_host_keys: ["+next.File+"]")
	p := testenv.StartClient(t, l.ssh("-N", "-p", port, w.target()))
	l.awaitKnown(func(known string) bool { return strings.Contains(known, old) && strings.Contains(known, coming) })
	p.Kill()

	w.reconfigure("next_host_keys", "host_keys")
	p = testenv.StartClient(t, l.ssh("-N", "-p", port, w.target()))
	l.awaitKnown(func(known string) bool { return !strings.Contains(known, old) && strings.Contains(known, coming) })
	p.Kill()
	data, err := os.ReadFile(l.known)
	mustDo(t, err)
	if n := strings.Count(strings.TrimSpace(string(data)), "\n") + 1; n != 1 {
		t.Errorf("more is known than the gateway's key:\n%s", data)
	}
}

func base64Key(key ssh.PublicKey) string { return base64.StdEncoding.EncodeToString(key.Marshal()) }

// reconfigure changes the gateway's configuration and has it read that.
func (w *world) reconfigure(old, new string) {
	w.t.Helper()
	config, err := os.ReadFile(w.config)
	mustDo(w.t, err)
	mustDo(w.t, os.WriteFile(w.config, []byte(strings.Replace(string(config), old, new, 1)), 0o600))
	reloads := strings.Count(w.gateway.Output.String(), "reloaded")
	mustDo(w.t, w.gateway.Cmd.Process.Signal(syscall.SIGHUP))
	w.awaitGateway("reloaded", reloads+1)
}

// awaitKnown waits for ssh to change its known_hosts, which it does some time
// after it has signed in.
func (l *laptop) awaitKnown(ok func(string) bool) {
	l.t.Helper()
	deadline := time.After(testenv.Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		known, err := os.ReadFile(l.known)
		if err == nil && ok(string(known)) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			l.t.Fatalf("known_hosts has %v\n%s", err, known)
		}
	}
}

// TestSSHConfig: with the lines that stagedoor prints for users, who have a CI that
// signs host keys, ssh TASK.DOMAIN enters end to end without a question.
func TestSSHConfig(t *testing.T) {
	t.Parallel()
	w, _ := jumpWorld(t)
	ca, hostKey := keygen(t, w.dir, "ca", "-t", "ed25519"), keygen(t, w.dir, "host", "-t", "ed25519")
	certify(t, ca, hostKey, "-h", "-n", "task-1,task-1.localhost", "-V", "+1h")
	agent := w.startAgent(nil, "--host-key", hostKey.File, "--host-certificate", hostKey.File+"-cert.pub")
	prints := func(more ...string) []string {
		args := append([]string{"ssh-config", "--config", w.config, "--host-ca", ca.File + ".pub", "--tasks", "task-*"}, more...)
		return strings.Split(mustRun(t, exec.CommandContext(t.Context(), filepath.Join(binaries, "stagedoor"), args...)), "\n")
	}
	l := newLaptop(t, testenv.NewKey(t, t.TempDir(), "stranger"), prints("--known-hosts"), append(prints("--identity", w.key.File), "Match all")...)
	for _, typed := range []string{"ssh task-1.localhost", "ssh TASK-1.localhost", "ssh task-1"} {
		if got := mustRun(t, l.typed(typed+" echo in")); got != "in\n" {
			t.Errorf("%s: output %q", typed, got)
		}
	}
	mustRun(t, l.typed("echo copied >f && scp -F config f task-1.localhost:f"))
	if data, err := os.ReadFile(filepath.Join(w.home, "f")); err != nil || string(data) != "copied\n" {
		t.Errorf("scp: %v: %q", err, data)
	}
	if strings.Contains(agent.Output.String(), "spliced=true") {
		t.Error("some of this was spliced")
	}
}
