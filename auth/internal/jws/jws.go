// Package jws reads signed tokens: JSON Web Signatures in compact form (RFC 7515,
// section 7.1). It is strict: a token can be written in one way only.
package jws

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// maxText bounds what is quoted of an error of a library, in bytes.
const maxText = 200

// Parse reads a token of at most limit bytes without verifying it. It must be
// signed by one of the algorithms, and of one of the types; "" stands for none.
// Its errors may be shown to whoever sent it.
func Parse(raw string, limit int, algorithms []jose.SignatureAlgorithm, types ...string) (*jose.JSONWebSignature, error) {
	if _, err := Payload(raw, limit); err != nil {
		return nil, err
	}
	token, err := jose.ParseSignedCompact(raw, algorithms)
	if unexpected, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return nil, fmt.Errorf("it is signed with algorithm %.16q, accepted is %q", unexpected.Got, algorithms)
	}
	if err != nil {
		return nil, fmt.Errorf("its header cannot be read: %w", printable.Error(err, maxText))
	}
	return token, checkHeader(token.Signatures[0].Header, types)
}

// Payload returns what is signed without looking at anything else. The form must
// be exact: Go's base64 skips line breaks and leaves the last bits unchecked, so
// that one token could be written in many ways.
func Payload(raw string, limit int) (payload []byte, err error) {
	if len(raw) > limit {
		return nil, fmt.Errorf("it is %d bytes long, %d are allowed", len(raw), limit)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("it is not a signed JWT: expected three parts joined by dots (was it cut off?)")
	}
	for i, part := range parts {
		data, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, errors.New("it is not a signed JWT: it has characters that do not belong there (white space, quotes, a line break?)")
		}
		if i == 1 {
			payload = data
		}
	}
	return payload, nil
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
