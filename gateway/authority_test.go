package gateway_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// certifyByKeygen gives a key a certificate by ssh-keygen, where ssh finds it.
func certifyByKeygen(t *testing.T, k, ca testenv.Key, args ...string) {
	t.Helper()
	if err := os.WriteFile(k.File+".pub", []byte(k.Line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(append([]string{"-q", "-s", ca.File, "-I", "carol@example.com"}, args...), k.File+".pub")
	if out, err := exec.CommandContext(t.Context(), testenv.Need(t, "ssh-keygen"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %v: %s", args, err, out)
	}
}

// TestAuthorities: the stock client enters with certificates of the operator's
// authority what the policy opens to their principals, through the gateway and at
// the jump hop under any name, and runs what they permit.
func TestAuthorities(t *testing.T) {
	dir := t.TempDir()
	ca := testenv.NewKey(t, dir, "ca")
	w := newWorld(t, func(s *gateway.Settings) {
		s.Guests = auth.AnyOf{auth.GrantKeys{}, &auth.Authority{Name: "certificates by ca.pub", Keys: []ssh.PublicKey{ca.Signer.PublicKey()},
			Tasks: map[string][]string{"ops": {"*"}, "web": {"web-*"}}}}
	})
	hostKey := testenv.Signer(t)
	w.startAgent(w.token("web-1", time.Now()), func(a *agent.Agent) { a.HostKey = hostKey })
	k := testenv.NewKey(t, dir, "carol")
	for name, test := range map[string]struct {
		args []string
		want string // what echo prints; empty: refused
	}{
		"for everything":        {[]string{"-n", "ops"}, "in\n"},
		"for the pattern":       {[]string{"-n", "somebody,web"}, "in\n"},
		"for nothing here":      {[]string{"-n", "web-1"}, ""},
		"from here":             {[]string{"-n", "web", "-O", "source-address=127.0.0.0/8,::1"}, "in\n"},
		"from elsewhere":        {[]string{"-n", "web", "-O", "source-address=192.0.2.0/24"}, ""},
		"a forced command":      {[]string{"-n", "web", "-O", "force-command=echo forced $SSH_ORIGINAL_COMMAND"}, "forced echo in\n"},
		"a host's certificate":  {[]string{"-n", "web", "-h"}, ""},
		"past its time":         {[]string{"-n", "web", "-V", "-2h:-1h"}, ""},
		"an option not known":   {[]string{"-n", "web", "-O", "critical:fly@example.com=1"}, ""},
		"files alone":           {[]string{"-n", "web", "-O", "extension:permit-sftp@stagedoor"}, ""},
		"commands by our words": {[]string{"-n", "web", "-O", "extension:permit-exec@stagedoor"}, "in\n"},
	} {
		certifyByKeygen(t, k, ca, test.args...)
		out, err := w.sshCommand("web-1", k, "echo in").Output()
		if string(out) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %v: %q, want %q", name, err, out, test.want)
		}
	}
	certifyByKeygen(t, k, ca, "-n", "web")
	for _, user := range []string{"carol", "web-1", "ROOT@corp"} {
		c, err := w.dial(user, ssh.PublicKeys(certSigner(t, k)))
		if err != nil {
			t.Errorf("at the jump hop, as %s: %v", user, err)
			continue
		}
		if ch, err := jumpTo(c, "web-1"); err != nil {
			t.Errorf("as %s: %v", user, err)
		} else {
			ch.Close()
		}
		c.Close()
	}
}

// certSigner signs with the certificate that lies beside a key.
func certSigner(t *testing.T, k testenv.Key) ssh.Signer {
	t.Helper()
	data, err := os.ReadFile(k.File + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(key.(*ssh.Certificate), k.Signer)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// TestExplainAuthorities: an operator is told why a certificate opens a task, or
// does not.
func TestExplainAuthorities(t *testing.T) {
	dir := t.TempDir()
	ca := testenv.NewKey(t, dir, "ca")
	w := newWorld(t, func(s *gateway.Settings) {
		s.Guests = auth.AnyOf{auth.GrantKeys{}, &auth.Authority{Name: "certificates by ca.pub", Keys: []ssh.PublicKey{ca.Signer.PublicKey()},
			Tasks: map[string][]string{"web": {"web-*"}}}}
	})
	w.startHost("web-1", w.token("web-1", time.Now()), answerAtEnd)
	k := testenv.NewKey(t, dir, "carol")
	for task, want := range map[string]string{
		"web-1": `certificates by ca.pub: lets the key in as \"carol@example.com\"`,
		"db-1":  `certificates by ca.pub: certificate is for other tasks: \"web\" opens web-*`,
	} {
		certifyByKeygen(t, k, ca, "-n", "web")
		cert, err := os.ReadFile(filepath.Join(dir, "carol-cert.pub"))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.explain(task, string(cert)); !strings.Contains(got, want) {
			t.Errorf("%s: %s", task, got)
		}
	}
}
