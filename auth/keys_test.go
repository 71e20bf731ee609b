package auth

import (
	"crypto/dsa" //lint:ignore SA1019 such keys must be refused
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// rsaOf makes a public key with a modulus of so many bits; it takes no prime to
// be refused.
func rsaOf(t testing.TB, bits int) ssh.PublicKey {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	key, err := ssh.NewPublicKey(&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// otherKey is of a type that nobody has heard of.
type otherKey struct{ ssh.PublicKey }

func (otherKey) Type() string { return "ssh-tomorrow" }

func TestCheckKey(t *testing.T) {
	good := newSigner(t).PublicKey()
	one := big.NewInt(1)
	weak, err := ssh.NewPublicKey(&dsa.PublicKey{Parameters: dsa.Parameters{P: new(big.Int).Lsh(one, 1023), Q: new(big.Int).Lsh(one, 159), G: one}, Y: one})
	if err != nil {
		t.Fatal(err)
	}
	certOf := func(key, ca ssh.PublicKey) ssh.PublicKey { return &ssh.Certificate{Key: key, SignatureKey: ca} }
	forged := userCertificate(t, newSigner(t), nil)
	forged.SignatureKey = good // of an authority that is known, say
	for what, c := range map[string]struct {
		key  ssh.PublicKey
		want string // part of the error
	}{
		"ed25519":                   {good, ""},
		"sk ed25519":                {securityKey(t, ssh.KeyAlgoSKED25519), ""},
		"sk ecdsa":                  {securityKey(t, ssh.KeyAlgoSKECDSA256), ""},
		"rsa 2048":                  {rsaOf(t, 2048), ""},
		"rsa 16384":                 {rsaOf(t, 16384), ""},
		"certificate":               {userCertificate(t, newSigner(t), nil), ""},
		"expired certificate":       {userCertificate(t, newSigner(t), func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, 1 }), ""},
		"certificate never valid":   {userCertificate(t, newSigner(t), func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter }), "expired"},
		"certificate for tomorrows": {userCertificate(t, newSigner(t), func(c *ssh.Certificate) { c.ValidAfter = 1 << 63 }), "year 10000"},
		"host certificate":          {userCertificate(t, newSigner(t), func(c *ssh.Certificate) { c.CertType, c.ValidPrincipals = ssh.HostCert, nil }), ""},
		"unsigned certificate":      {certOf(good, good), "algorithm"},
		"forged certificate":        {forged, "does not verify"},
		"rsa 2047":                  {rsaOf(t, 2047), "2047 bits"},
		"rsa 1024":                  {rsaOf(t, 1024), "ssh-keygen -t ed25519"},
		"rsa 16385":                 {rsaOf(t, 16385), "16385 bits"},
		"dsa":                       {weak, "DSA"},
		"nil":                       {nil, "no key"},
		"nil certificate":           {(*ssh.Certificate)(nil), "no key"},
		"certificate of nothing":    {certOf(nil, good), "no key"},
		"certificate by nobody":     {certOf(good, nil), "no key"},
		"certificate of a weak key": {certOf(rsaOf(t, 1024), good), "1024 bits"},
		"certificate by a weak key": {certOf(good, weak), "DSA"},
		"certificate of one":        {certOf(certOf(good, good), good), "within a certificate"},
		"certificate by one":        {certOf(good, certOf(good, good)), "within a certificate"},
		"unknown":                   {otherKey{good}, "ssh-tomorrow"},
	} {
		err := CheckKey(c.key)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}
