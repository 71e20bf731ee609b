package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// LoadTokenKey reads what MintToken signs with: an Ed25519 private key in PEM
// (PKCS #8), or else a shared secret. See LoadTokenVerifyKey for what a shared
// secret is. A file that others may read is refused.
func LoadTokenKey(path string) (any, error) {
	data, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		key, err := parseEd25519Private(data)
		if err != nil {
			return nil, fmt.Errorf("load token key %s: %w", path, err)
		}
		return key, nil
	}
	secret, err := parseSecret(data)
	if err != nil {
		return nil, fmt.Errorf("load token key %s: %w", path, err)
	}
	return secret, nil
}

// LoadTokenVerifyKey reads what a TokenVerifier verifies with: an Ed25519
// public key in PEM, or else a shared secret, which is the file without a line
// break at its end, 32 bytes or more, and which others may not be able to read.
// Whatever looks like another kind of key is refused and never taken for a
// secret: a public key is none.
func LoadTokenVerifyKey(path string) (any, error) {
	data, mode, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		key, err := parseEd25519Public(data)
		if err != nil {
			return nil, fmt.Errorf("load token key %s: %w", path, err)
		}
		return key, nil
	}
	if err := checkMode(path, mode); err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	secret, err := parseSecret(data)
	if err != nil {
		return nil, fmt.Errorf("load token key %s: %w", path, err)
	}
	return secret, nil
}

func parseEd25519Private(data []byte) (ed25519.PrivateKey, error) {
	const hint = "make one with openssl genpkey -algorithm ed25519"
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("not a key in PEM: " + hint)
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("it holds a %.64q, expected a PKCS #8 \"PRIVATE KEY\": %s", block.Type, hint)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is more than one key in the file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a key of type %T, expected Ed25519: %s", parsed, hint)
	}
	return key, nil
}

func parseEd25519Public(data []byte) (ed25519.PublicKey, error) {
	const hint = "write the public key with openssl pkey -in KEY -pubout"
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("its PEM cannot be read")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("it holds a %.64q, expected a \"PUBLIC KEY\": %s", block.Type, hint)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is more than one key in the file: name each in a file of its own")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("it holds a key of type %T, expected Ed25519", parsed)
	}
	return key, nil
}

// parseSecret refuses what is published rather than kept: with a public key as
// secret, anybody could sign.
func parseSecret(data []byte) ([]byte, error) {
	secret := bytes.TrimRight(data, "\r\n")
	if _, _, _, _, err := ssh.ParseAuthorizedKey(secret); err == nil {
		return nil, errors.New("it holds an SSH public key, expected a PEM key or a shared secret")
	}
	if isPublicKey(secret) {
		return nil, errors.New("it holds a public key without the lines of a PEM around it: write it with openssl pkey -in KEY -pubout")
	}
	if trimmed := bytes.TrimSpace(secret); len(trimmed) > 0 && trimmed[0] == '{' {
		return nil, errors.New("it holds JSON: JSON web keys are not supported yet")
	}
	if _, err := algorithmOf(secret); err != nil {
		return nil, err
	}
	return secret, nil
}

// isPublicKey knows the wire formats of public keys, as they are and in base64.
func isPublicKey(data []byte) bool {
	forms := [][]byte{data}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
		if decoded, err := encoding.DecodeString(string(data)); err == nil {
			forms = append(forms, decoded)
		}
	}
	for _, form := range forms {
		if _, err := x509.ParsePKIXPublicKey(form); err == nil {
			return true
		}
		if _, err := ssh.ParsePublicKey(form); err == nil {
			return true
		}
	}
	return false
}
