package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestAgentForwarding: the keys of a guest's ssh-agent are at hand in a session that
// asks for them, spliced and end to end, and nowhere else.
func TestAgentForwarding(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent(nil, "--host-key", hostKey.File)
	path := startSSHAgent(t, keygen(t, t.TempDir(), "carried", "-t", "ed25519"))
	testenv.Need(t, "ssh-add")
	use := "IdentityAgent " + path
	for name, w := range map[string]*world{"spliced": w.spliced(t, use), "end to end": w.endToEnd(t, hostKey, use)} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			out := mustRun(t, w.command("ssh", "-A", w.target(), "ssh-add -l; echo $SSH_AUTH_SOCK; stat -c %a $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK)"))
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != 4 || !strings.Contains(lines[0], "carried") {
				t.Fatalf("in the session:\n%s", out)
			}
			if lines[2] != "600" || lines[3] != "700" {
				t.Errorf("others may use the socket: mode %s in a directory of mode %s", lines[2], lines[3])
			}
			awaitNoFile(t, filepath.Dir(lines[1]))
			if out := w.run("echo $SSH_AUTH_SOCK"); strings.TrimSpace(out) != os.Getenv("SSH_AUTH_SOCK") {
				t.Errorf("without -A: %q", out)
			}
		})
	}
}

// TestX11Forwarding: a program in the session draws on the guest's display.
func TestX11Forwarding(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"xauth", "xdpyinfo"} {
		testenv.Need(t, program)
	}
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent(nil, "--host-key", hostKey.File)
	display, authority := startXvfb(t)
	for name, w := range map[string]*world{"spliced": w, "end to end": w.endToEnd(t, hostKey)} {
		for _, option := range []string{"-X", "-Y"} {
			t.Run(name+" "+option, func(t *testing.T) {
				w := w.in(t)
				cmd := w.command("ssh", "-o", "ForwardX11Timeout=1h", option, w.target(), "echo $DISPLAY; xdpyinfo")
				cmd.Env = append(os.Environ(), "DISPLAY="+display, "XAUTHORITY="+authority)
				out := mustRun(t, cmd)
				if !strings.HasPrefix(out, "localhost:") && !strings.HasPrefix(out, "127.0.0.1:") || !strings.Contains(out, "number of screens:    1") {
					t.Errorf("in the session:\n%s", out)
				}
			})
		}
	}
}

// startXvfb starts an X server without a screen that lets in who has a cookie.
func startXvfb(t *testing.T) (display, authority string) {
	t.Helper()
	authority = filepath.Join(t.TempDir(), "Xauthority")
	mustDo(t, os.WriteFile(authority, nil, 0o600))
	read, write, err := os.Pipe()
	mustDo(t, err)
	defer read.Close()
	cmd := exec.Command(testenv.Need(t, "Xvfb"), "-displayfd", "3", "-auth", authority, "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{write}
	testenv.StartClient(t, cmd)
	write.Close()
	number, err := bufio.NewReader(read).ReadString('\n') // it writes the end of the line by itself
	mustDo(t, err)
	display = ":" + strings.TrimSpace(number)
	add := exec.CommandContext(t.Context(), "xauth", "-f", authority, "add", display, ".", strings.Repeat("0123456789abcdef", 2))
	mustRun(t, add)
	return display, authority
}
