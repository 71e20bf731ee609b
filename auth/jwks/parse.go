package jwks

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	strict "github.com/go-jose/go-jose/v4/json"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// Parse reads what a key file may hold: a JSON web key set, one JSON web key, or
// one or more public keys in PEM ("PUBLIC KEY"). Keys of a set that are for
// something else are passed over; a key that is weak, private or cannot be read
// is an error, and so is a file without any key to verify with.
func Parse(data []byte) ([]Key, error) {
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return parsePEM(data)
	}
	keys, refused, err := parseSet(data)
	switch {
	case err != nil:
		return nil, err
	case len(refused) > 0:
		return nil, refused[0]
	}
	return keys, nil
}

// parseSet reads a set. refused are keys that cannot be used for a reason that
// their owner should know.
func parseSet(data []byte) (keys []Key, refused []error, err error) {
	members, err := setMembers(data)
	if err != nil {
		return nil, nil, err
	}
	for i, member := range members {
		k, err := parseWebKey(member)
		switch {
		case errors.Is(err, errForeign):
		case err != nil:
			refused = append(refused, fmt.Errorf("key %d: %w", i+1, err))
		default:
			keys = append(keys, k)
		}
	}
	switch {
	case len(keys) > 0:
		return keys, refused, nil
	case len(refused) > 0:
		return nil, nil, refused[0]
	}
	return nil, nil, errors.New("there is no key for EdDSA, ES256 or RS256 signatures in it")
}

func setMembers(data []byte) ([]strict.RawMessage, error) {
	var set struct {
		Keys []strict.RawMessage `json:"keys"`
		Type string              `json:"kty"`
	}
	if err := strict.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("it is no JSON web key set (RFC 7517): %w", oneLine(err))
	}
	switch {
	case set.Type != "":
		return []strict.RawMessage{data}, nil
	case len(set.Keys) > maxKeys:
		return nil, fmt.Errorf("it holds %d keys, %d are allowed", len(set.Keys), maxKeys)
	}
	return set.Keys, nil
}

func parsePEM(data []byte) (keys []Key, err error) {
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		switch {
		case block == nil:
			return nil, errors.New("its PEM cannot be read")
		case strings.Contains(block.Type, "PRIVATE"):
			return nil, errors.New("it holds a private key, which does not belong here: write the public key with openssl pkey -in KEY -pubout")
		case block.Type != "PUBLIC KEY":
			return nil, fmt.Errorf("it holds a %.64q, expected a \"PUBLIC KEY\": write it with openssl pkey -in KEY -pubout", block.Type)
		case len(keys) == maxKeys:
			return nil, fmt.Errorf("it holds more than %d keys", maxKeys)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, oneLine(err)
		}
		k, err := NewKey("", public)
		if err != nil {
			return nil, err
		}
		keys, data = append(keys, k), rest
	}
	return keys, nil
}

// maxText bounds what is quoted of an error of a library, in bytes.
const maxText = 200

// oneLine makes an error of a library fit for a log, for it may quote what a
// stranger wrote.
func oneLine(err error) error { return printable.Error(err, maxText) }
