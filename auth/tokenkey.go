package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth/jwks"
)

// LoadTokenKey reads what MintToken signs with: a private key in PEM (PKCS #8),
// Ed25519, P-256 or RSA of 2048 bits or more, or else a shared secret. See
// [LoadTokenVerifyKeys] for what a shared secret is. A file that others may read
// is refused.
func LoadTokenKey(path string) (any, error) {
	data, err := readSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("load token key: %w", err)
	}
	key, err := parseTokenKey(data)
	if err != nil {
		return nil, fmt.Errorf("load token key %s: %w", path, err)
	}
	return key, nil
}

func parseTokenKey(data []byte) (any, error) {
	if isPEM(data) {
		return parsePrivate(data)
	}
	return parseSecret(data)
}

func isPEM(data []byte) bool { return bytes.Contains(data, []byte("-----BEGIN ")) }

// TokenKeyAlgorithms are those that LoadOrCreateTokenKey makes keys for, the one
// to prefer first.
func TokenKeyAlgorithms() []string {
	return []string{string(jose.EdDSA), string(jose.ES256), string(jose.RS256)}
}

// LoadOrCreateTokenKey is [LoadOrCreateEd25519] for keys that sign tokens with one
// of [TokenKeyAlgorithms]. A key that is there must be good for that algorithm,
// unless it is empty, which makes a key for EdDSA where there is none.
func LoadOrCreateTokenKey(path, algorithm string) (key crypto.Signer, created bool, err error) {
	generate, ok := map[string]func() (crypto.Signer, error){
		"":                 generateEd25519,
		string(jose.EdDSA): generateEd25519,
		string(jose.ES256): func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		string(jose.RS256): func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
	}[algorithm]
	if !ok {
		return nil, false, fmt.Errorf("algorithm %.16q is not supported: there are %q", algorithm, TokenKeyAlgorithms())
	}
	key, created, err = loadOrCreate(path, generate)
	if err != nil || algorithm == "" {
		return key, created, err
	}
	if alg, err := algorithmOf(key); err != nil || string(alg) != algorithm {
		return nil, created, fmt.Errorf("the key in %s is for %s, and not for %s: name another file", path, alg, algorithm)
	}
	return key, created, nil
}

// loadOrCreate keeps keys in PKCS #8.
func loadOrCreate(path string, generate func() (crypto.Signer, error)) (key crypto.Signer, created bool, err error) {
	created, err = createIfMissing(path, func() (*pem.Block, error) {
		key, err := generate()
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, err
	})
	if err != nil {
		return nil, false, err
	}
	data, err := readSecretFile(path)
	if err != nil {
		return nil, false, fmt.Errorf("load key: %w", err)
	}
	if key, err = parsePrivate(data); err != nil {
		return nil, false, fmt.Errorf("load key %s: %w", path, err)
	}
	return key, created, nil
}

func generateEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func parsePrivate(data []byte) (crypto.Signer, error) {
	const hint = "make one with stagedoor keygen, or openssl genpkey -algorithm ed25519"
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("not a key in PEM: " + hint)
	case block.Type == "EC PRIVATE KEY" || block.Type == "RSA PRIVATE KEY" || block.Type == "EC PARAMETERS":
		return nil, fmt.Errorf("it holds a %.64q, expected a PKCS #8 \"PRIVATE KEY\": convert it with openssl pkey -in KEY -out NEW", block.Type)
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("it holds a %.64q, expected a PKCS #8 \"PRIVATE KEY\": %s", block.Type, hint)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is more than one key in the file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if _, err := algorithmOf(parsed); err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("it holds a key of type %T, which signs nothing: %s", parsed, hint)
	}
	return key, nil
}

// parsePublic reads one or more public keys, in PEM or as a JSON web key set.
func parsePublic(data []byte) ([]any, error) {
	found, err := jwks.Parse(data)
	if err != nil {
		return nil, err
	}
	keys := make([]any, len(found))
	for i, key := range found {
		keys[i] = key.Public
	}
	return keys, nil
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
	if isJSON(secret) {
		return nil, errors.New("it holds JSON, expected a PEM key or a shared secret")
	}
	if _, err := algorithmOf(secret); err != nil {
		return nil, err
	}
	return secret, nil
}

func isJSON(data []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) }

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
