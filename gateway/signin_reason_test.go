package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestCertificateRefusedWithAReason: the log says why a certificate does not count,
// and its holder learns what can be read in it: the same at a task that exists and
// at one that does not.
func TestCertificateRefusedWithAReason(t *testing.T) {
	w := newWorld(t)
	ca, other := testenv.Signer(t), testenv.Signer(t)
	w.startHost("task-1", w.token("task-1", time.Now(), authority(ca, "")), answerAtEnd)
	k := testenv.NewKey(t, w.dir, "carol")
	soon, past := time.Now().Add(time.Minute), time.Now().Add(-time.Minute)
	print := ssh.FingerprintSHA256(k.Signer.PublicKey())
	for name, test := range map[string]struct {
		signer    ssh.Signer
		log, told string
	}{
		"expired":              {certify(t, k, ca, past, "task-1"), "expired at " + past.UTC().Format("2006-01-02T15:04"), "expired at " + past.UTC().Format("2006-01-02T15:04")},
		"for another task":     {certify(t, k, ca, soon, "task-2"), `lists the principals [\"task-2\"], and not [\"task-1\"]`, `lists the principals ["task-2"]`},
		"of another authority": {certify(t, k, other, soon, "task-1"), ssh.FingerprintSHA256(other.PublicKey()), `lists the principals ["task-1"]`},
	} {
		seen := func(user string) (told string) {
			c, err := w.dial(user, ssh.PublicKeys(test.signer), ssh.KeyboardInteractive(
				func(_, instruction string, _ []string, _ []bool) ([]string, error) {
					told += instruction
					return nil, nil
				}))
			if err == nil {
				c.Close()
			}
			return strings.Replace(told, fmt.Sprintf("a task named %q", user), "a task", 1)
		}
		told := seen("task-1")
		if !strings.Contains(told, print+` (certificate "carol"): it `) || !strings.Contains(told, test.told) {
			t.Errorf("%s: the guest is told %q", name, told)
		}
		if strings.Contains(told, "task-1") && !strings.Contains(test.told, "task-1") {
			t.Errorf("%s: the guest learns of a task: %q", name, told)
		}
		eventually(t, name+": a reason in the log", func() bool {
			for line := range strings.Lines(w.log.String()) {
				if strings.Contains(line, "guest did not sign in") && strings.Contains(line, test.log) && strings.Contains(line, print) {
					return true
				}
			}
			return false
		})
		if name == "of another authority" {
			if got := seen("task-2"); got != told {
				t.Errorf("%s: at a task that does not exist %q, at one that does %q", name, got, told)
			}
		}
	}
}
