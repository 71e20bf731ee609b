package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// securityKey is a FIDO key of type sk-ssh-ed25519@openssh.com, made of an
// ordinary one (OpenSSH, PROTOCOL.u2f). Its first flag says that it was touched.
type securityKey struct {
	key   ed25519.PrivateKey
	flags byte
}

func (k securityKey) PublicKey() ssh.PublicKey {
	public, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, k.key.Public().(ed25519.PublicKey), "ssh:"}))
	if err != nil {
		panic(err)
	}
	return public
}

func (k securityKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	tail := []byte{k.flags, 0, 0, 0, 7} // and a counter
	signed := append(append(append([]byte{}, application[:]...), tail...), message[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.key, signed), Rest: tail}, nil
}

// TestTouchOfCertifiedKeys: a certificate cannot waive the touch of a security key
// unless the line of its authority does so too, as under sshd; neither for the
// task nor for a jump to it.
func TestTouchOfCertifiedKeys(t *testing.T) {
	w := newWorld(t)
	strict, lax := testenv.Signer(t), testenv.Signer(t)
	w.startHost("task-1", w.token("task-1", time.Now(), authority(strict, ""), authority(lax, ",no-touch-required")), answerAtEnd)
	for name, test := range map[string]struct {
		ca            ssh.Signer
		waived, flags byte
		opens         bool
	}{
		"touched":                           {strict, 0, 1, true},
		"not touched":                       {strict, 0, 0, false},
		"waived by the certificate alone":   {strict, 1, 0, false},
		"waived by the line alone":          {lax, 0, 0, false},
		"waived by both":                    {lax, 1, 0, true},
		"waived by both, touched":           {lax, 1, 1, true},
		"waived by the line alone, touched": {lax, 0, 1, true},
	} {
		_, private, _ := ed25519.GenerateKey(rand.Reader)
		key := securityKey{private, test.flags}
		cert := &ssh.Certificate{
			Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: "carol", ValidPrincipals: []string{"task-1"},
			ValidBefore: ssh.CertTimeInfinity, Permissions: ssh.Permissions{Extensions: map[string]string{}},
		}
		if test.waived == 1 {
			cert.Extensions["no-touch-required"] = ""
		}
		if err := cert.SignCert(rand.Reader, test.ca); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewCertSigner(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.dial("task-1", ssh.PublicKeys(signer))
		if (err == nil) != test.opens {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			c.Close()
		}
		if c, err = w.dial("carol", ssh.PublicKeys(signer)); err != nil {
			continue // what waived by both is for task-1 alone
		}
		if _, err := jumpTo(c, "task-1"); err == nil && !test.opens {
			t.Errorf("%s: it jumps", name)
		}
		c.Close()
	}
}
