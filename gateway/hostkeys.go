package gateway

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// How a gateway changes its host key without a warning at any guest (OpenSSH's
// PROTOCOL, section 2.5): it announces the next key for a while, and clients
// that know the present one write it to their known_hosts, once the gateway has
// proved to own it.
const (
	announceHostKeys = "hostkeys-00@openssh.com"
	proveHostKeys    = "hostkeys-prove-00@openssh.com"
)

// maxProofs bounds how often one connection may have the gateway sign. A client
// asks once for each announcement.
const maxProofs = 4

// announcedKeys are the keys that guests may remember this gateway by.
func (s *Settings) announcedKeys() []ssh.Signer {
	var keys []ssh.Signer
	for _, key := range slices.Concat(s.HostKeys, s.NextHostKeys) {
		if _, isCert := key.PublicKey().(*ssh.Certificate); !isCert && findKey(keys, key.PublicKey().Marshal()) == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

func findKey(keys []ssh.Signer, blob []byte) ssh.Signer {
	for _, key := range keys {
		if string(key.PublicKey().Marshal()) == string(blob) {
			return key
		}
	}
	return nil
}

// logHostKeys says which host keys are new to guests, after a reload.
func (s *Server) logHostKeys(before, now *Settings) {
	shown, announced := fingerprints(now.HostKeys), fingerprints(now.NextHostKeys)
	if slices.Equal(shown, fingerprints(before.HostKeys)) && slices.Equal(announced, fingerprints(before.NextHostKeys)) {
		return
	}
	args := []any{"host_keys", shown}
	if len(announced) > 0 {
		args = append(args, "announced", announced)
	}
	s.log.Info("host keys have changed", args...)
}

func fingerprints(keys []ssh.Signer) (prints []string) {
	for _, key := range keys {
		prints = append(prints, ssh.FingerprintSHA256(key.PublicKey()))
	}
	return prints
}

// announce tells a guest that has just signed in the gateway's host keys. Other
// clients than OpenSSH make nothing of it, and some have stumbled over it.
func (g *guest) announce() {
	if !strings.HasPrefix(string(g.conn.ClientVersion()), openSSHLike) {
		return
	}
	var payload []byte
	for _, key := range g.settings.announcedKeys() {
		payload = append(payload, ssh.Marshal(struct{ Blob []byte }{key.PublicKey().Marshal()})...)
	}
	g.conn.SendRequest(announceHostKeys, false, payload)
}

// prove answers a guest who asks whether the gateway owns the keys that it has
// announced.
func (g *guest) prove(r *ssh.Request) error {
	g.proofs++
	if g.proofs > maxProofs {
		return errors.New("host keys were proved often enough")
	}
	algorithm := ""
	if c, ok := g.conn.Conn.(ssh.AlgorithmsConnMetadata); ok {
		algorithm = c.Algorithms().HostKey
	}
	proof, err := proof(g.settings.announcedKeys(), g.conn.SessionID(), algorithm, r.Payload)
	if err != nil {
		return err
	}
	return r.Reply(true, proof)
}

// proof signs the session with each of the keys that the payload lists, all of
// which must be among keys and none twice. negotiated is the algorithm of the
// host key in this connection's key exchange.
func proof(keys []ssh.Signer, session []byte, negotiated string, payload []byte) ([]byte, error) {
	var asked []ssh.Signer
	for len(payload) > 0 {
		var next struct {
			Blob []byte
			Rest []byte `ssh:"rest"`
		}
		if err := ssh.Unmarshal(payload, &next); err != nil {
			return nil, fmt.Errorf("malformed list of host keys: %w", err)
		}
		key := findKey(keys, next.Blob)
		if key == nil || findKey(asked, next.Blob) != nil {
			return nil, errors.New("asked to prove a host key that was not announced, or one twice")
		}
		asked = append(asked, key)
		payload = next.Rest
	}
	if len(asked) == 0 {
		return nil, errors.New("asked to prove no host key")
	}
	var signatures []byte
	for _, key := range asked {
		signature, err := signProof(key, session, negotiated)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, ssh.Marshal(struct{ Signature []byte }{ssh.Marshal(signature)})...)
	}
	return signatures, nil
}

// signProof signs what proves one key. For RSA the client expects the hash that
// it negotiated, where that was an RSA key's; never SHA-1.
func signProof(key ssh.Signer, session []byte, negotiated string) (*ssh.Signature, error) {
	data := ssh.Marshal(struct {
		Request       string
		Session, Blob []byte
	}{proveHostKeys, session, key.PublicKey().Marshal()})
	if key.PublicKey().Type() != ssh.KeyAlgoRSA {
		return key.Sign(rand.Reader, data)
	}
	algorithm := ssh.KeyAlgoRSASHA512
	if negotiated == ssh.KeyAlgoRSASHA256 {
		algorithm = negotiated
	}
	signer, ok := key.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("an RSA host key that signs with SHA-1 only")
	}
	return signer.SignWithAlgorithm(rand.Reader, data, algorithm)
}
