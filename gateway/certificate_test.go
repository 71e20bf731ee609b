package gateway_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// certify gives a key a certificate, where ssh finds it, and returns its signer.
func certify(t *testing.T, k testenv.Key, ca ssh.Signer, until time.Time, principals ...string) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{
		Key: k.Signer.PublicKey(), CertType: ssh.UserCert, KeyId: "carol", ValidPrincipals: principals,
		ValidAfter: uint64(until.Add(-time.Hour).Unix()), ValidBefore: uint64(until.Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""}},
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.File+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, k.Signer)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func authority(ca ssh.Signer, options string) testenv.Key {
	return testenv.Key{Line: "cert-authority" + options + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(ca.PublicKey())))}
}

// TestCertificates: guests of a task's authority get in by the gateway and end to
// end, whatever name the jump hop has; others do not.
func TestCertificates(t *testing.T) {
	w := newWorld(t)
	ca, hostKey := testenv.Signer(t), testenv.Signer(t)
	w.startAgent(w.token("task-1", time.Now(), authority(ca, "")), func(a *agent.Agent) { a.HostKey = hostKey })
	k := testenv.NewKey(t, w.dir, "carol")
	certify(t, k, ca, time.Now().Add(time.Minute), "task-1")
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey.PublicKey()}, "IdentityFile "+k.File)
	for name, args := range map[string][]string{
		"spliced":                {"task-1@gw"},
		"end to end":             {"-J", "task-1@gw", "task-1"},
		"end to end, other name": {"-J", "carol@gw", "task-1"},
	} {
		if out, err := j.command(append(args, "echo fine")...).CombinedOutput(); err != nil || string(out) != "fine\n" {
			t.Errorf("%s: %v: %q", name, err, out)
		}
	}
	for name, signer := range map[string]ssh.Signer{
		"the bare key":         k.Signer,
		"of another authority": certify(t, k, testenv.Signer(t), time.Now().Add(time.Minute), "task-1"),
		"for another task":     certify(t, k, ca, time.Now().Add(time.Minute), "task-2"),
		"past its time":        certify(t, k, ca, time.Now().Add(-time.Minute), "task-1"),
	} {
		if c, err := w.dial("task-1", ssh.PublicKeys(signer)); err == nil {
			c.Close()
			t.Errorf("%s: it signs in", name)
		}
		c, err := w.dial("somebody", ssh.PublicKeys(signer))
		if err != nil {
			continue
		}
		if _, err := jumpTo(c, "task-1"); err == nil {
			t.Errorf("%s: it jumps", name)
		}
		c.Close()
	}
}

// TestOperatorsAuthority: certificates by an authority of the operator's open the
// tasks that they name, or all where the operator says who.
func TestOperatorsAuthority(t *testing.T) {
	ca, vip := testenv.Signer(t), testenv.Signer(t)
	w := newWorld(t, withOperatorKeys(t, authority(ca, "").Line+"\n"+authority(vip, `,principals="carol"`).Line+"\n"))
	w.startHost("task-1", w.token("task-1", time.Now()), answerAtEnd)
	w.startHost("task-2", w.token("task-2", time.Now()), answerAtEnd)
	k := testenv.NewKey(t, w.dir, "carol")
	until := time.Now().Add(time.Minute)
	named, all := certify(t, k, ca, until, "task-1"), certify(t, k, vip, until, "carol")
	for _, user := range []string{"Carol C.", "carol", "task-1"} {
		for name, test := range map[string]struct {
			signer ssh.Signer
			task   string
			opens  bool
		}{
			"the named task":       {named, "task-1", true},
			"another task":         {named, "task-2", false},
			"any task, by name":    {all, "task-1", true},
			"any task, the second": {all, "task-2", true},
		} {
			c, err := w.dial(user, ssh.PublicKeys(test.signer))
			if err != nil {
				t.Errorf("%s as %q: %v", name, user, err)
				continue
			}
			if user != "task-1" || test.task == "task-1" { // else it would be in the host's network
				if _, err := jumpTo(c, test.task); (err == nil) != test.opens {
					t.Errorf("%s as %q: %v", name, user, err)
				}
			}
			c.Close()
		}
	}
}

// TestGuestsAreNoAuthorities: a key that is granted entry makes no further ones by
// signing them, not even for jumping to nowhere; nor does an authority open
// anything with its own key.
func TestGuestsAreNoAuthorities(t *testing.T) {
	w := newWorld(t)
	alice, ca := testenv.NewKey(t, w.dir, "alice"), testenv.Signer(t)
	w.startHost("task-1", w.token("task-1", time.Now(), alice, authority(ca, "")), answerAtEnd)
	k := testenv.NewKey(t, w.dir, "carol")
	until := time.Now().Add(time.Minute)
	for name, test := range map[string]struct {
		signer ssh.Signer
		enters bool
	}{
		"signed by a guest":         {certify(t, k, alice.Signer, until, "task-1"), false},
		"the authority itself":      {ca, false},
		"signed by the authority":   {certify(t, k, ca, until, "task-1"), true},
		"a guest":                   {alice.Signer, true},
		"a guest, with a signature": {certify(t, alice, ca, until, "task-1"), true},
	} {
		for _, user := range []string{"task-1", "somebody"} {
			c, err := w.dial(user, ssh.PublicKeys(test.signer))
			if err == nil {
				c.Close()
			}
			if (err == nil) != test.enters {
				t.Errorf("%s, as %s: %v", name, user, err)
			}
		}
	}
}
