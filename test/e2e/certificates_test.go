package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestUserCertificates: whoever a CA vouches for that the grant names enters,
// within what the certificate says. ssh-keygen makes the certificates.
func TestUserCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, stranger := keygen(t, dir, "ca", "-t", "ed25519"), keygen(t, dir, "stranger", "-t", "ed25519")
	w := newWorld(t)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--authorized-keys", lines(t, "cert-authority "+ca.Line))}, "--host-key", hostKey.File)
	guest := func(t *testing.T, ca testenv.Key, kind string, options ...string) []*world {
		key := keygen(t, t.TempDir(), "carol", "-t", kind)
		certify(t, ca, key, options...)
		return w.bothWays(t, key, hostKey)
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			for _, w := range guest(t, ca, kind, "-n", "task-1,task-2") {
				if got := w.run("echo in"); got != "in\n" {
					t.Errorf("output %q", got)
				}
			}
			w.gateway.WaitFor("carol the guest")
		})
	}
	for name, options := range map[string]string{
		"another task":          "-n task-2",
		"no task":               "",
		"expired":               "-n task-1 -V 20200101:20200102",
		"not yet valid":         "-n task-1 -V 20990101:20990102",
		"from another address":  "-n task-1 -O source-address=192.0.2.0/24",
		"unknown option":        "-n task-1 -O critical:no-such-option@example.com=x",
		"host certificate":      "-n task-1 -h",
		"key of the CA's owner": "",
	} {
		t.Run(name, func(t *testing.T) {
			guests := guest(t, ca, "ed25519", strings.Fields(options)...)
			if name == "key of the CA's owner" {
				guests = w.bothWays(t, ca, hostKey) // it vouches for others, and opens nothing itself
			}
			for _, w := range guests {
				fails(t, w.command("ssh", w.target(), "true"))
			}
		})
	}
	t.Run("stranger's CA", func(t *testing.T) {
		for _, w := range guest(t, stranger, "ed25519", "-n", "task-1") {
			fails(t, w.command("ssh", w.target(), "true"))
		}
	})
	t.Run("forced command", func(t *testing.T) {
		for _, w := range guest(t, ca, "ed25519", "-n", "task-1", "-O", "force-command=echo forced $SSH_ORIGINAL_COMMAND") {
			if got := w.run("echo in"); got != "forced echo in\n" {
				t.Errorf("output %q", got)
			}
		}
	})
	t.Run("no terminal", func(t *testing.T) {
		for _, w := range guest(t, ca, "ed25519", "-n", "task-1", "-O", "no-pty") {
			out, _ := w.command("ssh", "-tt", w.target(), "tty").CombinedOutput()
			if strings.Contains(string(out), "/dev/pts") {
				t.Errorf("a terminal in spite of no-pty: %s", out)
			}
		}
	})
}

// certify makes the certificate that ssh finds beside the key.
func certify(t *testing.T, ca, key testenv.Key, options ...string) {
	t.Helper()
	args := append([]string{"-q", "-s", ca.File, "-I", "carol the guest"}, options...)
	mustRun(t, exec.CommandContext(t.Context(), testenv.Need(t, "ssh-keygen"), append(args, key.File+".pub")...))
}
