package auth

import (
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestAlgorithms: what is added comes last and once, and nothing weak can be.
func TestAlgorithms(t *testing.T) {
	plain := Algorithms()
	c := Algorithms(ssh.KeyExchangeECDHP256, ssh.CipherChaCha20Poly1305, ssh.HMACSHA512, "hmac-sha1", "aes128-cbc")
	for what, lists := range map[string][3][]string{
		"key exchanges": {plain.KeyExchanges, c.KeyExchanges, {ssh.KeyExchangeECDHP256}},
		"ciphers":       {plain.Ciphers, c.Ciphers, {ssh.CipherChaCha20Poly1305}},
		"MACs":          {plain.MACs, c.MACs, {ssh.HMACSHA512}},
	} {
		if want := slices.Concat(lists[0], lists[2]); !slices.Equal(lists[1], want) {
			t.Errorf("%s are %v, want %v", what, lists[1], want)
		}
	}
	insecure := ssh.InsecureAlgorithms()
	for _, name := range slices.Concat(insecure.KeyExchanges, insecure.Ciphers, insecure.MACs, plain.KeyExchanges, []string{""}) {
		if CheckAlgorithm(name) == nil {
			t.Errorf("%q can be added", name)
		}
	}
	for _, name := range slices.Concat(extraKeyExchanges, extraCiphers, extraMACs) {
		if err := CheckAlgorithm(name); err != nil {
			t.Error(err)
		}
	}
}
