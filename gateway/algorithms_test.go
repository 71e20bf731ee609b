package gateway_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestExtraAlgorithms: a client in FIPS mode, which has the NIST curves alone, gets
// in where the operator and the job want it, and nowhere else.
func TestExtraAlgorithms(t *testing.T) {
	extra := []string{ssh.KeyExchangeECDHP256}
	for _, wanted := range []bool{false, true} {
		w := newWorld(t, func(s *gateway.Settings) {
			if wanted {
				s.ExtraAlgorithms = extra
			}
		})
		k := testenv.NewKey(t, w.dir, "alice")
		w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) {
			if wanted {
				a.ExtraAlgorithms = extra
			}
		})
		cmd := w.sshCommand("task-1", k, "echo in")
		cmd.Args = append(cmd.Args[:1], append([]string{"-o", "KexAlgorithms=ecdh-sha2-nistp256", "-o", "Ciphers=aes256-gcm@openssh.com"}, cmd.Args[1:]...)...)
		out, err := cmd.CombinedOutput()
		if !wanted {
			if err == nil {
				t.Errorf("without it: %s", out)
			}
			eventually(t, "the gateway says why", func() bool { return strings.Contains(w.log.String(), "no common algorithm for key exchange") })
			continue
		}
		if err != nil || !strings.HasSuffix(string(out), "in\n") {
			t.Errorf("ssh: %v\n%s", err, out)
		}
		w.endToEndWith(t, k, ssh.Config{KeyExchanges: extra})
	}
}

// endToEndWith runs a command through a jump to task-1.
func (w *world) endToEndWith(t *testing.T, k testenv.Key, c ssh.Config) {
	t.Helper()
	stream, err := w.mustDial("task-1", k).Dial("tcp", "task-1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	conn, channels, requests, err := ssh.NewClientConn(stream, "task-1", &ssh.ClientConfig{
		Config: c, User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(k.Signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.CombinedOutput("echo in"); err != nil || string(out) != "in\n" {
		t.Errorf("end to end: %v, output %q", err, out)
	}
}
