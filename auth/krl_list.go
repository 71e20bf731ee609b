package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ParseRevokedKeys reads the contents of a file; name is what errors call it. What
// cannot be read is an error, as nobody could tell whom it was to keep out. So is
// an empty file, which is how one that is being written looks.
func ParseRevokedKeys(name string, data []byte) (*RevokedKeys, error) {
	r := newRevokedKeys(name)
	var err error
	rest, binary := bytes.CutPrefix(data, []byte(krlMagic))
	switch {
	case len(data) == 0:
		err = errors.New("it is empty: to revoke nobody write a comment into it, such as \"# nobody\"")
	case IsPrivateKey(data):
		err = fmt.Errorf("%w: give its public half, as in a .pub file", ErrPrivateKey)
	case binary:
		err = r.parseKRL(rest)
	default:
		err = r.parseList(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// parseList reads public keys, one on each line.
func (r *RevokedKeys) parseList(data []byte) error {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.Trim(strings.TrimRight(string(line), "\r\n"), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		key, err := parseRevokedKey(text)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		r.keys[string(key.Marshal())] = struct{}{}
	}
	return nil
}

// parseRevokedKey reads: type base64 [comment]. Unlike one that may enter, the key
// may be weak. Of a certificate it is the key inside that is revoked.
func parseRevokedKey(text string) (ssh.PublicKey, error) {
	keyType, rest := cutField(text)
	encoded, _ := cutField(rest)
	wire, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || encoded == "" {
		return nil, errors.New("no public key: write type base64-key [comment], as in a .pub file, or make a list of serial numbers, key IDs and hashes with ssh-keygen -k")
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, errors.New("key cannot be read: it was cut off while copying, or is of a type that is not known here")
	}
	if key.Type() != keyType {
		return nil, fmt.Errorf("line says %s, but its key is of type %q", quoteType(keyType), key.Type())
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return key, nil
}
