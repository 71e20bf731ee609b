package forge

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// What one account may make us hold.
const (
	maxBody = 64 << 10 // bytes of one answer
	maxKeys = 100      // a page of GitLab's API has no more either
)

// A key is one that an account has.
type key struct {
	ssh.PublicKey
	wire  string    // its wire format, to compare by
	until time.Time // when the forge stops accepting it; zero: never
}

// parseKeys reads a list of keys as forges publish them, one a line: type,
// base64, and maybe a comment. Keys that cannot be used for signing in are
// dropped, as they are of a kind that is weak or not known here. Anything else
// that is not a key is an error: the page is something else.
func parseKeys(body []byte) ([]key, error) {
	var keys []key
	for line := range bytes.Lines(body) {
		text := strings.TrimSpace(string(line))
		if text == "" {
			continue
		}
		k, err := parseKey(text)
		if err != nil {
			return nil, err
		}
		if keys, err = appendKey(keys, k); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// parseAPIKeys reads the list that all three APIs have in common. GitLab adds
// when a key expires, and what it is for.
func parseAPIKeys(body []byte) ([]key, error) {
	var list []struct {
		Key       string     `json:"key"`
		ExpiresAt *time.Time `json:"expires_at"`
		UsageType string     `json:"usage_type"`
	}
	if err := strict.Unmarshal(body, &list); err != nil {
		return nil, errNotJSON
	}
	if list == nil {
		return nil, errors.New("it is no list of keys")
	}
	var keys []key
	for _, entry := range list {
		k, err := parseKey(strings.TrimSpace(entry.Key))
		if err != nil {
			return nil, err
		}
		if entry.UsageType == "signing" {
			continue
		}
		if k != nil && entry.ExpiresAt != nil {
			k.until = *entry.ExpiresAt
		}
		if keys, err = appendKey(keys, k); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// appendKey skips nil and what is there already.
func appendKey(keys []key, k *key) ([]key, error) {
	switch {
	case k == nil || slices.ContainsFunc(keys, func(other key) bool { return other.wire == k.wire }):
		return keys, nil
	case len(keys) == maxKeys:
		return nil, fmt.Errorf("there are more than %d keys: remove those that are not in use", maxKeys)
	}
	return append(keys, *k), nil
}

// parseKey returns nil for a key that is well-formed and not accepted.
func parseKey(text string) (*key, error) {
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return nil, errors.New("it is no list of keys")
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil || !namesItself(wire, fields[0]) {
		return nil, errors.New("it is no list of keys, or cut off")
	}
	public, err := ssh.ParsePublicKey(wire)
	if err != nil || auth.CheckKey(public) != nil {
		return nil, nil
	}
	if _, certificate := public.(*ssh.Certificate); certificate {
		return nil, nil
	}
	return &key{PublicKey: public, wire: string(public.Marshal())}, nil
}

// namesItself says whether a key in wire format (RFC 4253, section 6.6) is of the
// type that stands before it, and is whole: strings one after another. Only
// certificates are not, which are dropped anyhow.
func namesItself(wire []byte, keyType string) bool {
	named, rest, ok := cutString(wire)
	if !ok || string(named) != keyType {
		return false
	}
	if strings.HasSuffix(keyType, "-cert-v01@openssh.com") {
		return true
	}
	for len(rest) > 0 {
		if _, rest, ok = cutString(rest); !ok {
			return false
		}
	}
	return true
}

// cutString splits off a string as RFC 4251, section 5, has them.
func cutString(data []byte) (s, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n, rest := binary.BigEndian.Uint32(data), data[4:]
	if uint64(n) > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}
