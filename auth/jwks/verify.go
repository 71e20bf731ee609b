package jwks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// MaxToken is the length of a token in bytes beyond which it is refused unread.
const MaxToken = 32 << 10

// Verify checks the signature of a JWT and returns its payload. Its claims, its
// times, issuer and audience, are the caller's to check. The token must be in
// compact form (RFC 7515, section 7.1), of type JWT or without a type, and
// signed with one of the algorithms; none named stands for all that there are.
// An error that wraps [ErrUnavailable] says that there was nothing to verify
// with; any other, that the token is not good. It may be shown to whoever sent
// the token, except for ErrUnavailable, which can tell about this network.
func (s *Set) Verify(ctx context.Context, raw string, algorithms ...jose.SignatureAlgorithm) ([]byte, error) {
	if len(algorithms) == 0 {
		algorithms = Algorithms()
	}
	jws, err := parseToken(raw, algorithms)
	if err != nil {
		return nil, err
	}
	c, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	payload, err := c.verify(jws)
	if errors.Is(err, errUnknownKey) {
		if newer := s.renewed(ctx, c); newer != nil {
			payload, err = newer.verify(jws)
		}
	}
	return payload, err
}

// What is wrong with a signature. The second one a newer copy of the keys could
// put right.
var (
	errSignature  = errors.New("its signature is wrong: was it altered?")
	errUnknownKey = errors.New("is not among those of the issuer: if the key is new, try again in a minute")
)

// verify tries the keys that may have signed.
func (c *snapshot) verify(jws *jose.JSONWebSignature) ([]byte, error) {
	header := jws.Signatures[0].Header
	err := fmt.Errorf("it is signed with a key (kid %.64q) that %w", header.KeyID, errUnknownKey)
	for _, k := range c.keys {
		if string(k.Algorithm) != header.Algorithm || k.ID != header.KeyID && k.ID != "" && header.KeyID != "" {
			continue
		}
		if payload, err := jws.Verify(k.Public); err == nil {
			return payload, nil
		}
		if k.ID != "" && k.ID == header.KeyID {
			err = errSignature
		}
	}
	return nil, err
}

// parseToken reads a compact JWS without verifying it. Its form must be exact:
// Go's base64 skips line breaks and leaves the last bits unchecked, so that one
// token could be written in many ways.
func parseToken(raw string, algorithms []jose.SignatureAlgorithm) (*jose.JSONWebSignature, error) {
	if len(raw) > MaxToken {
		return nil, fmt.Errorf("it is %d bytes long, %d are allowed", len(raw), MaxToken)
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
		return nil, fmt.Errorf("its header cannot be read: %w", oneLine(err))
	}
	return jws, checkHeader(jws.Signatures[0].Header)
}

// checkHeader: the type keeps tokens of different purposes apart (RFC 8725,
// section 3.11), and an extension that must be understood is not.
func checkHeader(h jose.Header) error {
	for _, name := range []jose.HeaderKey{"crit", "b64"} {
		if _, present := h.ExtraHeaders[name]; present {
			return fmt.Errorf("header parameter %q is not supported", name)
		}
	}
	typ, present := h.ExtraHeaders[jose.HeaderType]
	if !present {
		return nil
	}
	if s, ok := typ.(string); !ok || !strings.EqualFold(s, "JWT") {
		return fmt.Errorf("its type (typ) is %.64q, expected \"JWT\"", fmt.Sprint(typ))
	}
	return nil
}
