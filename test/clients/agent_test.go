package clients

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// forwardsAgent checks that ssh-add on the host sees the guest's ssh-agent: its
// key is listed, and signs.
func forwardsAgent(run runner) check {
	return func(t *testing.T, g *guest) {
		socket, key := serveAgent(t)
		mustDo(t, os.WriteFile(filepath.Join(g.remote, "key.pub"), ssh.MarshalAuthorizedKey(key), 0o600))
		cmd := run(t, g, "ssh-add -l && ssh-add -T "+g.remotePath("key.pub")+" && echo it signs")
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket)
		out := mustRun(t, cmd)
		if !strings.Contains(out, ssh.FingerprintSHA256(key)) || !strings.HasSuffix(out, "it signs\n") {
			t.Errorf("the host sees no agent with the key %s:\n%s", ssh.FingerprintSHA256(key), out)
		}
	}
}

// serveAgent is an ssh-agent with one key, which opens nothing.
func serveAgent(t *testing.T) (socket string, key ssh.PublicKey) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // t.TempDir is too long for a socket
	mustDo(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := testenv.NewKey(t, dir, "carried")
	data, err := os.ReadFile(file.File)
	mustDo(t, err)
	private, err := ssh.ParseRawPrivateKey(data)
	mustDo(t, err)
	keyring := agent.NewKeyring()
	mustDo(t, keyring.Add(agent.AddedKey{PrivateKey: private, Comment: "carried"}))
	l, err := net.Listen("unix", filepath.Join(dir, "agent"))
	mustDo(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				agent.ServeAgent(keyring, c)
			}()
		}
	}()
	return l.Addr().String(), file.Signer.PublicKey()
}
