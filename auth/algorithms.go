package auth

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Algorithms returns the transport algorithms that every SSH server of
// Stagedoor offers, strongest key exchange first. The lists are explicit
// because the library's defaults still offer SHA-1 MACs and
// diffie-hellman-group14-sha1.
//
// Finite-field Diffie-Hellman is left out: a client that computes nothing makes
// the server spend 65 ms on it (CVE-2002-20001), and every client of the last ten
// years has Curve25519. The NIST curves are left out, too: ssh-audit fails a
// server that offers them, and only a client in FIPS mode has nothing else. extra
// brings such back, by names that [CheckAlgorithm] takes; others are passed over.
//
// chacha20-poly1305 is left out: OpenSSH prefers it, and Go's is half as fast
// as AES-GCM on amd64 and arm64. Every client that lacks AES-GCM (dropbear, old
// PuTTY) has AES-CTR. With it, dropbear and libssh2 before 1.11 know no MAC better
// than hmac-sha2-256, the one that is not encrypt-then-MAC.
func Algorithms(extra ...string) ssh.Config {
	c := ssh.Config{
		KeyExchanges: []string{
			ssh.KeyExchangeMLKEM768X25519,
			ssh.KeyExchangeCurve25519,
		},
		Ciphers: []string{
			ssh.CipherAES128GCM,
			ssh.CipherAES256GCM,
			ssh.CipherAES128CTR,
			ssh.CipherAES192CTR,
			ssh.CipherAES256CTR,
		},
		MACs: []string{
			ssh.HMACSHA256ETM,
			ssh.HMACSHA512ETM,
			ssh.HMACSHA256,
		},
	}
	for _, name := range extra {
		switch {
		case slices.Contains(extraKeyExchanges, name):
			c.KeyExchanges = append(c.KeyExchanges, name)
		case slices.Contains(extraCiphers, name):
			c.Ciphers = append(c.Ciphers, name)
		case slices.Contains(extraMACs, name):
			c.MACs = append(c.MACs, name)
		}
	}
	return c
}

// What may be added: sound, and left out for the reasons above.
var (
	extraKeyExchanges = []string{
		ssh.KeyExchangeECDHP256,
		ssh.KeyExchangeECDHP384,
		ssh.KeyExchangeECDHP521,
		ssh.KeyExchangeDH16SHA512,
	}
	extraCiphers = []string{ssh.CipherChaCha20Poly1305}
	extraMACs    = []string{ssh.HMACSHA512}
)

// CheckAlgorithm returns an error unless [Algorithms] can add what has this name.
func CheckAlgorithm(name string) error {
	known := slices.Concat(extraKeyExchanges, extraCiphers, extraMACs)
	if slices.Contains(known, name) {
		return nil
	}
	return fmt.Errorf("%q cannot be added; there are %s", name, strings.Join(known, ", "))
}

// PublicKeyAlgorithms returns the signature algorithms that a guest's key may
// use. SHA-1 signatures (ssh-rsa) and DSA are not among them. They stand for
// certificates too: x/crypto goes by the algorithm of a certificate's key, and
// takes no other names.
func PublicKeyAlgorithms() []string {
	return []string{
		ssh.KeyAlgoED25519,
		ssh.KeyAlgoSKED25519,
		ssh.KeyAlgoECDSA256,
		ssh.KeyAlgoECDSA384,
		ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoRSASHA512,
		ssh.KeyAlgoRSASHA256,
	}
}
