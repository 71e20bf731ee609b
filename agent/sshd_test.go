//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestLikeSSHD runs the same commands on a real sshd and on the agent. Whatever differs is a bug of the agent.
func TestLikeSSHD(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	port := startSSHD(t, h)
	for _, test := range []struct {
		options, command, stdin string
	}{
		{"-T", "true", ""},
		{"-T", "exit 255", ""},
		{"-T", "echo out; echo err >&2; exit 3", ""},
		{"-T", "cat; echo after", "input"},
		{"-T", "kill -KILL $$", ""},
		{"-T", "exec 2>/dev/null; sh -c 'kill -9 $$'; exit $?", ""},
		{"-T", "no-such-command-here", ""},
		{"-T", "", "echo from stdin; exit 4\n"},
		{"-T", "exec >&- 2>&-; exit 6", ""},
		{"-T", "exec <&-; echo x", strings.Repeat("x", 1<<20)},
		{"-T", "head -c 5", strings.Repeat("y", 4<<20)},
		{"-T", "(sleep 0.2; echo late) & echo early; exit 2", ""},
		{"-T", "echo $0 $#", ""},
		{"-T", "tty; test -t 0 || test -t 1 || test -t 2 || echo none", ""},
		{"-T", "ulimit -c; umask", ""},
		{"-T", "trap '' PIPE; yes | head -1; trap", ""},
		{"-T", "printf '\\000\\001\\377\\r\\n'", ""},
		{"-T", "echo " + strings.Repeat("long ", 20000) + "| wc", ""},
		{"-T", "ps -o pid= -g $$ | wc -l; test $(ps -o sid= -p $$) -eq $$ && echo leads its session", ""},
		{"-tt", "echo out; echo err >&2; exit 3", ""},
		{"-tt", "stty -a | grep -v speed; stty size", ""},
		{"-tt", "test -t 0 -a -t 1 -a -t 2 && echo all", ""},
		{"-tt", "sleep 100 & echo over", ""},
		{"-tt", "trap '' HUP; sleep 0.3 & echo over", ""},
		{"-tt", "kill -TERM $$", ""},
		{"-tt", "ps -o stat= -p $$ | cut -c1-3", ""},
		{"-tt", "printf 'a\\tb\\nc'", ""},
		{"-tt", "test $TERM = dumb && test -n \"$SSH_TTY\" && test $SSH_TTY = $(tty) && echo named", ""},
		{"-s", "no-such-subsystem", ""},
	} {
		t.Run(brief(test.options+" "+test.command), func(t *testing.T) {
			t.Parallel()
			ours, theirs := h.client("ssh", test.options, "task", test.command), h.client("ssh", "-o", "User="+currentUser(t), "-p", port, test.options, "task", test.command)
			ours.Env, theirs.Env = append(os.Environ(), "TERM=dumb"), append(os.Environ(), "TERM=dumb")
			got, want := h.run(ours, test.stdin), h.run(theirs, test.stdin)
			if got != want {
				t.Errorf("ssh %s %.100q\nagent %+v\nsshd  %+v", test.options, test.command, shortened(got), shortened(want))
			}
		})
	}
}

func shortened(r result) result {
	return result{brief(r.stdout), brief(r.stderr), r.status}
}

func currentUser(t *testing.T) string {
	t.Helper()
	name, _ := account()
	return name
}

// startSSHD starts a real sshd that has the host's key and lets the same guest in; its home is that of the host's task.
func startSSHD(t *testing.T, h *testHost) (port string) {
	t.Helper()
	program := testenv.Need(t, "sshd")
	if os.Geteuid() == 0 {
		must(t, os.MkdirAll("/run/sshd", 0o755)) // its privilege separation directory, made at boot
	}
	if shell := passwdShell(); shell != h.Shell {
		testenv.Skip(t, fmt.Sprintf("sshd would run %s, not %s", shell, h.Shell))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.path("sshd_key")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.WriteFile(h.path("authorized_keys"), ssh.MarshalAuthorizedKey(h.guest.PublicKey()), 0o600))
	public, err := os.ReadFile(h.path("sshd_key.pub"))
	must(t, err)
	known, err := os.OpenFile(h.path("known_hosts"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	fmt.Fprintf(known, "[127.0.0.1]:%s %s", port, public)
	known.Close()
	config := fmt.Sprintf(`ListenAddress 127.0.0.1:%s
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PrintMotd no
PrintLastLog no
`, port, h.path("sshd_key"), h.path("authorized_keys"))
	must(t, os.WriteFile(h.path("sshd_config"), []byte(config), 0o600))
	cmd := exec.CommandContext(t.Context(), program, "-D", "-e", "-f", h.path("sshd_config"))
	log := new(syncBuffer)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal("sshd does not start: ", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, "sshd", func() bool { return bytes.Contains([]byte(log.String()), []byte("listening")) || processEnded(cmd) })
	if processEnded(cmd) {
		t.Fatal("sshd does not run: ", log.String())
	}
	return port
}

func processEnded(cmd *exec.Cmd) bool { return !alive(cmd.Process.Pid) }
