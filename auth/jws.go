package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
	"github.com/go-jose/go-jose/v4/jwt"
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
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return jose.EdDSA, nil
		}
		return "", errors.New("Ed25519 public key is of the wrong length")
	case ed25519.PrivateKey:
		if len(k) == ed25519.PrivateKeySize {
			return jose.EdDSA, nil
		}
		return "", errors.New("Ed25519 private key is of the wrong length")
	case []byte:
		if len(k) >= minSecret {
			return jose.HS256, nil
		}
		return "", fmt.Errorf("shared secret has %d bytes, at least %d are needed: make one with openssl rand -hex 32", len(k), minSecret)
	}
	return "", fmt.Errorf("a key of type %T is not supported: use Ed25519 or a shared secret", key)
}

// sign makes a compact JWS (RFC 7515) of the claims, of at most limit bytes.
func sign(key any, typ string, claims any, limit int) (string, error) {
	if _, public := key.(ed25519.PublicKey); public {
		return "", errors.New("a public key cannot sign")
	}
	alg, err := algorithmOf(key)
	if err != nil {
		return "", err
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

// parseJWS reads a compact JWS without verifying it. Its form must be exact:
// Go's base64 skips line breaks and leaves the last bits unchecked, so that one
// token could be written in many ways.
func parseJWS(raw string, limit int, algorithms []jose.SignatureAlgorithm, types ...string) (*jose.JSONWebSignature, error) {
	if len(raw) > limit {
		return nil, fmt.Errorf("it is %d bytes long, %d are allowed", len(raw), limit)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("it is not a signed JWT: expected three parts joined by dots (was it cut off?)")
	}
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, errors.New("it is not a signed JWT: it has characters that do not belong there (white space, quotes, a line break?)")
		}
	}
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if unexpected, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return nil, fmt.Errorf("it is signed with algorithm %.16q, accepted is %q", unexpected.Got, algorithms)
	}
	if err != nil {
		return nil, fmt.Errorf("its header cannot be read: %w", err)
	}
	return jws, checkHeader(jws.Signatures[0].Header, types)
}

// checkHeader: the type keeps tokens of different purposes apart (RFC 8725,
// section 3.11), and an extension that must be understood is not.
func checkHeader(h jose.Header, types []string) error {
	for _, name := range []jose.HeaderKey{"crit", "b64"} {
		if _, present := h.ExtraHeaders[name]; present {
			return fmt.Errorf("header parameter %q is not supported", name)
		}
	}
	typ := ""
	if v, present := h.ExtraHeaders[jose.HeaderType]; present {
		s, ok := v.(string)
		if !ok || s == "" {
			return errors.New("header parameter typ is no text")
		}
		typ = s
	}
	if !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, typ) }) {
		return fmt.Errorf("its type (typ) is %.64q, expected %q", typ, types[0])
	}
	return nil
}

// verify tries the keys that are good for the algorithm of the JWS, and returns
// what was signed.
func verify(jws *jose.JSONWebSignature, keys []any) ([]byte, error) {
	for _, key := range keys {
		alg, err := algorithmOf(key)
		if err != nil || string(alg) != jws.Signatures[0].Header.Algorithm {
			continue
		}
		if payload, err := jws.Verify(key); err == nil {
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
