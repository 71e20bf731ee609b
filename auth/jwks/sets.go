package jwks

import (
	"context"
	"errors"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// Sets are several sets, of which any may have the key that a token is signed
// with.
type Sets []*Set

// Verify is [Set.Verify] by all of them. While one of them has the key, none is
// waited for: not one that is down, either.
func (s Sets) Verify(ctx context.Context, raw string, algorithms ...jose.SignatureAlgorithm) ([]byte, error) {
	token, err := parse(raw, algorithms)
	if err != nil {
		return nil, err
	}
	for _, set := range s {
		if c := set.atHand(); c != nil {
			if payload, err := c.verify(token); err == nil {
				return payload, nil
			}
		}
	}
	return s.verifyPatiently(ctx, raw, algorithms)
}

// verifyPatiently asks all that can have the key anew.
func (s Sets) verifyPatiently(ctx context.Context, raw string, algorithms []jose.SignatureAlgorithm) (payload []byte, err error) {
	payloads, errs := make([][]byte, len(s)), make([]error, len(s))
	var wg sync.WaitGroup
	for i, set := range s {
		wg.Go(func() { payloads[i], errs[i] = set.Verify(ctx, raw, algorithms...) })
	}
	wg.Wait()
	err = errUnknownKey
	for i := range s {
		switch {
		case errs[i] == nil:
			return payloads[i], nil
		case errors.Is(err, errUnknownKey), errors.Is(errs[i], ErrUnavailable): // what can be put right is told first
			err = errs[i]
		}
	}
	return nil, err
}

// Renew renews all of them.
func (s Sets) Renew() {
	for _, set := range s {
		set.Renew()
	}
}

// Close closes all of them.
func (s Sets) Close() {
	for _, set := range s {
		set.Close()
	}
}
