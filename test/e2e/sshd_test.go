package e2e

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// startSSHD starts a real sshd for the same guest, and returns a world whose task
// is the user that it serves, for commands to be compared.
func (w *world) startSSHD(more ...string) *world {
	w.t.Helper()
	program := testenv.Need(w.t, "sshd")
	if os.Geteuid() == 0 {
		mustDo(w.t, os.MkdirAll("/run/sshd", 0o755)) // for privilege separation, made at boot
	}
	dir := w.t.TempDir()
	hostKey := keygen(w.t, dir, "host", "-t", "ed25519")
	me, err := user.Current()
	mustDo(w.t, err)
	s := *w
	s.dir, s.task, s.ssh = dir, me.Username, testenv.FreeAddress(w.t)
	s.hostKey, _, _, _, err = ssh.ParseAuthorizedKey([]byte(hostKey.Line))
	mustDo(w.t, err)
	config := filepath.Join(dir, "sshd_config")
	text := append([]string{
		"ListenAddress " + s.ssh, "HostKey " + hostKey.File, "AuthorizedKeysFile " + w.key.File + ".pub", "PidFile none",
		"StrictModes no", "UsePAM no", "PermitRootLogin yes", "PrintMotd no", "PrintLastLog no",
	}, more...)
	mustDo(w.t, os.WriteFile(config, []byte(strings.Join(text, "\n")+"\n"), 0o600))
	testenv.StartClient(w.t, exec.Command(program, "-D", "-e", "-f", config)).WaitFor("Server listening")
	return &s
}
