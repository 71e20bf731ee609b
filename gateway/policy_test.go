package gateway_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestPolicyAfterReload: agents hold end-to-end guests to the most that is
// permitted now, not to what was when they registered.
func TestPolicyAfterReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, hostKey := testenv.NewKey(t, w.dir, "alice"), testenv.Signer(t)
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) { a.HostKey = hostKey })
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey.PublicKey()}, "IdentityFile "+k.File)
	run := func() bool { return j.command("-J", "task-1@gw", "task-1", "true").Run() == nil }
	if !run() {
		t.Fatal("a guest cannot run a command")
	}
	open := j.command("-J", "task-1@gw", "task-1", "echo in; read line; echo $line")
	stdin, _ := open.StdinPipe()
	stdout, _ := open.StdoutPipe()
	if err := open.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	next := w.settings
	next.Policy = (&auth.Grant{Permissions: []string{auth.PermitSFTP}}).Permitted()
	if err := w.server.Reload(next); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commands are refused end to end", func() bool { return !run() })
	stdin.Write([]byte("still\n"))
	var rest strings.Builder
	buf := make([]byte, 64)
	for n, err := stdout.Read(buf); n > 0 || err == nil; n, err = stdout.Read(buf) {
		rest.Write(buf[:n])
	}
	if err := open.Wait(); err != nil || rest.String() != "still\n" {
		t.Errorf("what was open is cut off: %v, %q", err, rest.String())
	}
	if err := w.server.Reload(w.settings); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commands are allowed again", run)
}
