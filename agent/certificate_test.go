//go:build linux

package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// Guests sign in end to end with certificates by a CA of the grant, made by ssh-keygen and shown by ssh.
func TestGuestCertificates(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	dir := t.TempDir()
	ca, other := testenv.NewKey(t, dir, "ca"), testenv.NewKey(t, dir, "other")
	for _, test := range []struct {
		name, line string // before the CA's key
		ca         testenv.Key
		args       []string
		enters     bool
	}{
		{"good", "cert-authority", ca, []string{"-n", "task-1"}, true},
		{"of several principals", "cert-authority", ca, []string{"-n", "a,task-1"}, true},
		{"for another task", "cert-authority", ca, []string{"-n", "task-2"}, false},
		{"for no task", "cert-authority", ca, nil, false},
		{"by another CA", "cert-authority", other, []string{"-n", "task-1"}, false},
		{"by a key that is no CA", "", ca, []string{"-n", "task-1"}, false},
		{"expired", "cert-authority", ca, []string{"-n", "task-1", "-V", "-2h:-1h"}, false},
		{"not yet valid", "cert-authority", ca, []string{"-n", "task-1", "-V", "+1h:+2h"}, false},
		{"for the line's principal", `cert-authority,principals="ops"`, ca, []string{"-n", "ops"}, true},
		{"for the task, not the line's principal", `cert-authority,principals="ops"`, ca, []string{"-n", "task-1"}, false},
		{"from here", "cert-authority", ca, []string{"-n", "task-1", "-O", "source-address=127.0.0.0/8"}, true},
		{"from elsewhere", "cert-authority", ca, []string{"-n", "task-1", "-O", "source-address=192.0.2.0/24"}, false},
		{"with an unknown option", "cert-authority", ca, []string{"-n", "task-1", "-O", "critical:hours@example.com=9-17"}, false},
		{"a host's", "cert-authority", ca, []string{"-n", "task-1", "-h"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys = []string{strings.TrimSpace(test.line + " " + ca.Line)} })
			h.certify(test.ca, test.args...)
			r := h.ssh("", "echo in")
			if test.enters {
				r.want(t, "in\n")
				<-h.events.more
				if got := h.events.ended[0].Identity; got != "bob" {
					t.Errorf("identity %q", got)
				}
			} else if r.stdout != "" || r.status != 255 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// certify makes a certificate for the guest's key, where ssh looks for it.
func (h *testHost) certify(ca testenv.Key, args ...string) {
	h.t.Helper()
	must(h.t, os.WriteFile(h.path("key.pub"), ssh.MarshalAuthorizedKey(h.guest.PublicKey()), 0o600))
	cmd := exec.CommandContext(h.t.Context(), "ssh-keygen", append(append([]string{"-q", "-s", ca.File, "-I", "bob"}, args...), h.path("key.pub"))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
}

// What a certificate permits and forces holds.
func TestGuestCertificatePermissions(t *testing.T) {
	ca := testenv.NewKey(t, t.TempDir(), "ca")
	h := newTestHost(t, func(s *Server) {
		s.Grant.AuthorizedKeys = []string{"cert-authority " + ca.Line}
		s.Env = append(s.Env, "SSH_AUTH_SOCK=/of/the/task")
	})
	h.certify(ca, "-n", "task-1", "-O", "force-command=echo forced: $SSH_ORIGINAL_COMMAND")
	h.ssh("", "id").want(t, "forced: id\n")
	h.certify(ca, "-n", "task-1", "-O", "no-pty", "-O", "no-agent-forwarding")
	if r := h.run(h.client("ssh", "-tt", "task", "tty"), ""); strings.Contains(r.stdout, "/dev/") {
		t.Errorf("a terminal: %+v", r)
	}
	h.startAgent()
	h.run(h.client("ssh", "-A", "task", "echo $SSH_AUTH_SOCK"), "").want(t, "/of/the/task\n")
}

// What was answered when a key or certificate was offered has no say once it is shown to be held: by then it may be over.
func TestVerifiedIsJudgedAgain(t *testing.T) {
	ca, _ := newSigner(t)
	key, _ := newSigner(t)
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: "bob", ValidPrincipals: []string{"task-1"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	must(t, cert.SignCert(rand.Reader, ca))
	certified, err := ssh.NewCertSigner(cert, key)
	must(t, err)
	for name, signer := range map[string]ssh.Signer{"certificate": certified, "key": key} {
		t.Run(name, func(t *testing.T) {
			var late atomic.Bool
			h := newTestHost(t, func(s *Server) {
				s.Grant.AuthorizedKeys = []string{"cert-authority " + line(ca), `expiry-time="` + time.Now().Add(time.Hour).UTC().Format("200601021504Z") + `" ` + line(key)}
				s.Now = func() time.Time {
					if late.Load() {
						return time.Now().Add(3 * time.Hour)
					}
					return time.Now()
				}
			})
			_, err := dialWith(t, h, h.addr, ssh.PublicKeys(signer))
			must(t, err)
			_, err = dialWith(t, h, h.addr, ssh.PublicKeys(tellingSigner{signer, func() { late.Store(true) }}))
			if err == nil {
				t.Error("signed in with what was over by then")
			}
			if !late.Load() {
				t.Error("it was not even offered")
			}
		})
	}
}

// tellingSigner calls a function when it is to sign.
type tellingSigner struct {
	ssh.Signer
	tell func()
}

func (s tellingSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	s.tell()
	return s.Signer.Sign(rand, data)
}

// securityKey is a FIDO key of type sk-ssh-ed25519@openssh.com, made of an ordinary one (OpenSSH, PROTOCOL.u2f).
type securityKey struct {
	key   ed25519.PrivateKey
	flags byte // 1: somebody has touched it
}

const (
	skApplication = "ssh:"
	touched       = 1
)

func newSecurityKey(t *testing.T, flags byte) securityKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return securityKey{key, flags}
}

func (k securityKey) PublicKey() ssh.PublicKey {
	public, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, k.key.Public().(ed25519.PublicKey), skApplication}))
	if err != nil {
		panic(err)
	}
	return public
}

func (k securityKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte(skApplication)), sha256.Sum256(data)
	tail := []byte{k.flags, 0, 0, 0, 7} // and a counter
	signed := append(append(append([]byte{}, application[:]...), tail...), message[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.key, signed), Rest: tail}, nil
}

// A security key must have been touched, unless its own line says otherwise; what the gateway's operator permits has no say.
func TestSecurityKeys(t *testing.T) {
	policy, err := auth.MarshalPolicy(auth.DefaultPermissions())
	must(t, err)
	for _, test := range []struct {
		name, options string
		flags         byte
		enters        bool
	}{
		{"touched", "", touched, true},
		{"not touched", "", 0, false},
		{"verified but not touched", "", 4, false},
		{"need not be touched", "no-touch-required ", 0, true},
		{"need not be touched, was", "no-touch-required ", touched, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := newSecurityKey(t, test.flags)
			h := newTestHost(t, func(s *Server) {
				s.Grant.AuthorizedKeys = []string{test.options + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))}
			})
			_, err := dialWith(t, h, h.serveEndToEnd(tunnel.Welcome{Policy: policy}), ssh.PublicKeys(key))
			if (err == nil) != test.enters {
				t.Error(err)
			}
		})
	}
}

// A CA cannot waive the touch unless its line does so too, as under sshd.
func TestSecurityKeysWithCertificates(t *testing.T) {
	ca, _ := newSigner(t)
	for _, test := range []struct {
		options, extension string
		flags              byte
		enters             bool
	}{
		{"cert-authority ", "", touched, true},
		{"cert-authority ", "", 0, false},
		{"cert-authority ", "no-touch-required", 0, false},
		{"cert-authority,no-touch-required ", "", 0, false},
		{"cert-authority,no-touch-required ", "no-touch-required", 0, true},
	} {
		key := newSecurityKey(t, test.flags)
		cert := &ssh.Certificate{
			Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: "bob", ValidPrincipals: []string{"task-1"}, ValidBefore: ssh.CertTimeInfinity,
		}
		if test.extension != "" {
			cert.Extensions = map[string]string{test.extension: ""}
		}
		must(t, cert.SignCert(rand.Reader, ca))
		signer, err := ssh.NewCertSigner(cert, key)
		must(t, err)
		h := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys = []string{test.options + line(ca)} })
		if _, err := dialWith(t, h, h.addr, ssh.PublicKeys(signer)); (err == nil) != test.enters {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// A gateway may take away, and never choose what runs: what it calls its policy is not a way to run a command as a guest who
// trusts it with nothing.
func TestPolicyForcesNoCommand(t *testing.T) {
	key, _ := newSigner(t)
	h := newTestHost(t, func(s *Server) {
		s.EndToEndOnly = true
		s.Grant.AuthorizedKeys = []string{line(key)}
	})
	forced := `{"permissions":["permit-pty","permit-exec@stagedoor"],"critical_options":{"force-command":"echo of the gateway"}}`
	c, err := dialWith(t, h, h.serveEndToEnd(tunnel.Welcome{Policy: []byte(forced)}), ssh.PublicKeys(key))
	if err == nil {
		t.Errorf("a guest is let in, and runs %q", output(t, c, "echo of the guest"))
	}
}

// The log says which certificate did not count, and why.
func TestCertificateRefusedWithAReason(t *testing.T) {
	ca := testenv.NewKey(t, t.TempDir(), "ca")
	h := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys = []string{"cert-authority " + ca.Line} })
	h.certify(ca, "-n", "task-1", "-V", "20200101:20200102")
	if r := h.ssh("", "echo in"); r.status != 255 {
		t.Errorf("%+v", r)
	}
	log := h.logs.String()
	for _, want := range []string{ssh.FingerprintSHA256(h.guest.PublicKey()) + ` (certificate \"bob\")`, "it expired at 2020-01-0"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log", want)
		}
	}
}
