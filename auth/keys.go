package auth

import (
	"crypto/rsa"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// RSA keys below are too weak; above, checking one signature costs more than a
// stranger may make us spend. The upper bound is also the largest that
// ssh-keygen makes.
const (
	minRSABits = 2048
	maxRSABits = 16384
)

// CheckKey says whether a public key is of a kind that is accepted for signing
// in: Ed25519, ECDSA and their security key forms, RSA of 2048 to 16384 bits.
// Of a certificate it checks both the key and the authority's, and that this one
// did sign it. It says nothing about who may use the key.
func CheckKey(key ssh.PublicKey) error {
	switch k := key.(type) {
	case nil:
		return errors.New("no key")
	case *ssh.Certificate:
		if err := checkCertificateKeys(k); err != nil {
			return err
		}
		return checkSignature(k)
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoRSA:
		return checkRSA(key)
	case "ssh-dss": // x/crypto still parses them
		return errors.New("DSA keys are too weak: make a new key with ssh-keygen -t ed25519")
	}
	return fmt.Errorf("keys of type %.64q are not supported: make one with ssh-keygen -t ed25519", key.Type())
}

func checkRSA(key ssh.PublicKey) error {
	c, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return errors.New("RSA key cannot be examined")
	}
	pub, ok := c.CryptoPublicKey().(*rsa.PublicKey)
	if !ok || pub.N == nil || pub.N.Sign() <= 0 {
		return errors.New("RSA key cannot be examined")
	}
	switch bits := pub.N.BitLen(); {
	case bits < minRSABits:
		return fmt.Errorf("RSA key has %d bits, at least %d are needed: make a new key with ssh-keygen -t ed25519", bits, minRSABits)
	case bits > maxRSABits:
		return fmt.Errorf("RSA key has %d bits, at most %d are accepted: make a new key with ssh-keygen -t ed25519", bits, maxRSABits)
	}
	return nil
}

func checkCertificateKeys(c *ssh.Certificate) error {
	if c == nil || c.Key == nil || c.SignatureKey == nil {
		return errors.New("no key")
	}
	for _, key := range []ssh.PublicKey{c.Key, c.SignatureKey} {
		if _, nested := key.(*ssh.Certificate); nested {
			return errors.New("certificate within a certificate")
		}
		if err := CheckKey(key); err != nil {
			return err
		}
	}
	return nil
}
