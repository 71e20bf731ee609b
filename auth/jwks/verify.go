package jwks

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth/internal/jws"
)

// MaxToken is the length of a token in bytes beyond which it is refused unread.
const MaxToken = 32 << 10

// tokenTypes are what the typ of a token may be: most issuers write "JWT", some
// nothing.
var tokenTypes = []string{"JWT", ""}

// Verify checks the signature of a JWT and returns its payload. Its claims, its
// times, issuer and audience, are the caller's to check. The token must be in
// compact form (RFC 7515, section 7.1), of type JWT or without a type, and
// signed with one of the algorithms; none named stands for all that there are.
// An error that wraps [ErrUnavailable] says that there was nothing to verify
// with; any other, that the token is not good. It may be shown to whoever sent
// the token, except for ErrUnavailable, which can tell about this network.
func (s *Set) Verify(ctx context.Context, raw string, algorithms ...jose.SignatureAlgorithm) ([]byte, error) {
	token, err := parse(raw, algorithms)
	if err != nil {
		return nil, err
	}
	c, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	payload, err := c.verify(token)
	if errors.Is(err, errUnknownKey) {
		if newer := s.renewed(ctx, c); newer != nil {
			payload, err = newer.verify(token)
		}
	}
	return payload, err
}

func parse(raw string, algorithms []jose.SignatureAlgorithm) (*jose.JSONWebSignature, error) {
	if len(algorithms) == 0 {
		algorithms = Algorithms()
	}
	return jws.Parse(raw, MaxToken, algorithms, tokenTypes...)
}

// What is wrong with a signature. The second one a newer copy of the keys could
// put right.
var (
	errSignature  = errors.New("its signature is wrong: was it altered?")
	errUnknownKey = errors.New("is not among those of the issuer: if the key is new, try again in a minute")
)

// verify tries the keys that may have signed.
func (c *snapshot) verify(token *jose.JSONWebSignature) ([]byte, error) {
	header := token.Signatures[0].Header
	err := fmt.Errorf("it is signed with a key (kid %.64q) that %w", header.KeyID, errUnknownKey)
	for _, k := range c.keys {
		if string(k.Algorithm) != header.Algorithm || k.ID != header.KeyID && k.ID != "" && header.KeyID != "" {
			continue
		}
		if payload, err := token.Verify(k.Public); err == nil {
			return payload, nil
		}
		if k.ID != "" && k.ID == header.KeyID {
			err = errSignature
		}
	}
	return nil, err
}
