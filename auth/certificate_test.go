package auth

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// userCertificate is one that a CA of a company would make.
func userCertificate(t testing.TB, ca ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key:             newSigner(t).PublicKey(),
		CertType:        ssh.UserCert,
		KeyId:           "alice@example.com",
		ValidPrincipals: []string{string(someTask)},
		ValidAfter:      uint64(noon.Add(-time.Hour).Unix()),
		ValidBefore:     uint64(noon.Add(time.Hour).Unix()),
		Permissions:     ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{PermitPTY: "", PermitPortForwarding: ""}},
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(zeroReader{}, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificateOfAnAuthority(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	g := &Grant{AuthorizedKeys: []string{"cert-authority " + line(ca.PublicKey(), "CA")}}
	p, err := authorizeByGrant(t, g, Identity{Key: userCertificate(t, ca, nil), Remote: from("192.0.2.1")}, noon)
	if err != nil || IdentityName(p) != "alice@example.com" {
		t.Fatalf("%v, %v", p, err)
	}
	for what, key := range map[string]ssh.PublicKey{
		"the authority itself": ca.PublicKey(),
		"another authority":    userCertificate(t, other, nil),
	} {
		if p, err := authorizeByGrant(t, g, Identity{Key: key}, noon); !errors.Is(err, ErrDenied) || p != nil {
			t.Errorf("%s: %v, %v", what, p, err)
		}
	}
}
