package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/stagedoor/stagedoor/auth/jwks"
)

// Limits in bytes. A host token of the largest size leaves room for a grant
// with some two hundred Ed25519 keys; the renewal made of it has to fit as
// well, and is a little longer.
const (
	MaxTokenSize   = 32 << 10
	MaxRenewalSize = 48 << 10
)

// minSecret is the length of a shared secret in bytes below which HS256 is
// weaker than its hash (RFC 7518, section 3.2).
const minSecret = 32

// maxClaimTime is the end of the year 9999, the last that prints as a date.
const maxClaimTime = 253402300799

// algorithmOf is the one algorithm that a key is good for. That each kind of
// key has one, and that it is the key and not the token that chooses, is what
// rules out key confusion (RFC 8725, section 2.1).
func algorithmOf(key any) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case []byte:
		if len(k) >= minSecret {
			return jose.HS256, nil
		}
		return "", fmt.Errorf("shared secret has %d bytes, at least %d are needed: make one with openssl rand -hex 32", len(k), minSecret)
	case ed25519.PrivateKey:
		if len(k) != ed25519.PrivateKeySize {
			return "", errors.New("Ed25519 private key is of the wrong length")
		}
		return jose.EdDSA, nil
	case *ecdsa.PrivateKey:
		key = &k.PublicKey
	case *rsa.PrivateKey:
		key = &k.PublicKey
	}
	public, err := jwks.NewKey("", key)
	return public.Algorithm, err
}

// sign makes a compact JWS (RFC 7515) of the claims, of at most limit bytes.
func sign(key any, typ string, claims any, limit int) (string, error) {
	alg, err := algorithmOf(key)
	if err != nil {
		return "", err
	}
	if _, private := key.(crypto.Signer); !private && alg != jose.HS256 {
		return "", errors.New("a public key cannot sign")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	payload, err := marshalJSON(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	raw, err := signed.CompactSerialize()
	if err == nil && len(raw) > limit {
		return "", fmt.Errorf("it is %d bytes long, %d are allowed: grant fewer keys", len(raw), limit)
	}
	return raw, err
}

// marshalJSON writes <, > and & as they are: escaped for HTML, a grant could
// outgrow the token that it came in.
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// verify tries the keys that are good for the algorithm of the JWS, and returns
// what was signed.
func verify(token *jose.JSONWebSignature, keys []any) ([]byte, error) {
	for _, key := range keys {
		alg, err := algorithmOf(key)
		if err != nil || string(alg) != token.Signatures[0].Header.Algorithm {
			continue
		}
		if payload, err := token.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("its signature is not by a key that is accepted here: was it signed with another key, or altered?")
}

// readClaims decodes claims, duplicate names being an error.
func readClaims(payload []byte, into any) error {
	if err := strict.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("its claims cannot be read: %w", err)
	}
	return nil
}

// claimTime converts a time claim, which must be there.
func claimTime(name string, n *jwt.NumericDate) (time.Time, error) {
	if n == nil {
		return time.Time{}, fmt.Errorf("claim %s is missing", name)
	}
	if *n < 0 || *n > maxClaimTime {
		return time.Time{}, fmt.Errorf("claim %s is not a time in seconds since 1970", name)
	}
	return n.Time().UTC(), nil
}

// numericDate is nil for the zero time.
func numericDate(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return jwt.NewNumericDate(t)
}
