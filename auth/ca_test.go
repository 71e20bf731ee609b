package auth

import (
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func issueForTest(t testing.TB, ca ssh.Signer, p *ssh.Permissions) *ssh.Certificate {
	t.Helper()
	cert, err := IssueGuestCertificate(ca, Identity{Name: "alice"}, "task-1234", p, noon, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
