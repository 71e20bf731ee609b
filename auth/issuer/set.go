package issuer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/internal/jws"
	"github.com/stagedoor/stagedoor/auth/jwks"
)

// A Set verifies the tokens of several issuers. It picks by the claim iss, which
// at that point nobody has vouched for: the verifier that is picked checks it
// again with the signature. Nil, and a set of none, refuse all.
type Set struct{ verifiers []*Verifier }

// NewSet returns a set. Issuers and names must differ, and no task of one
// verifier may be one of another: the texts that their templates begin with must
// not be the beginning of each other.
func NewSet(verifiers ...*Verifier) (*Set, error) {
	for i, v := range verifiers {
		for _, w := range verifiers[:i] {
			a, b := v.task.Prefix(), w.task.Prefix()
			switch {
			case v.profile.Issuer == w.profile.Issuer:
				return nil, fmt.Errorf("issuer %s is configured twice: list what is required of both in one", v.profile.Issuer)
			case v.profile.Name == w.profile.Name:
				return nil, fmt.Errorf("two issuers are named %q: give each a name of its own", v.profile.Name)
			case strings.HasPrefix(a, b) || strings.HasPrefix(b, a):
				return nil, fmt.Errorf("issuers %q and %q: tasks of both could have the same name: begin one template with other text than %q", w.profile.Name, v.profile.Name, b)
			}
		}
	}
	return &Set{verifiers}, nil
}

// Close closes all verifiers.
func (s *Set) Close() {
	for _, v := range s.verifiers {
		v.Close()
	}
}

// Check calls Check of all verifiers.
func (s *Set) Check(ctx context.Context) error {
	var errs []error
	for _, v := range s.verifiers {
		errs = append(errs, v.Check(ctx))
	}
	return errors.Join(errs...)
}

// Issues says whether a token is of one of the issuers, going by what it says of
// itself, so that others can be verified in another way. It says nothing about
// whether the token is good.
func (s *Set) Issues(raw string) bool {
	v, err := s.pick(raw)
	return err == nil && v != nil
}

// Provider returns the name of the provider whose jobs have tasks with such
// names, or "". Tokens of any other origin should not be taken for such a task:
// who can sign them could else take the place of a job.
func (s *Set) Provider(task auth.TaskID) string {
	if s == nil {
		return ""
	}
	for _, v := range s.verifiers {
		if strings.HasPrefix(string(task), v.task.Prefix()) {
			return v.profile.Name
		}
	}
	return ""
}

// Verify has the token verified by the verifier of its issuer. An issuer that is
// not in the set is never asked.
func (s *Set) Verify(ctx context.Context, raw string) (*Identity, error) {
	v, err := s.pick(raw)
	if err != nil {
		return nil, invalid(err)
	}
	return v.Verify(ctx, raw)
}

func (s *Set) pick(raw string) (*Verifier, error) {
	iss, err := unverifiedIssuer(raw)
	if err != nil {
		return nil, err
	}
	if s != nil {
		for _, v := range s.verifiers {
			if v.profile.Issuer == iss {
				return v, nil
			}
		}
		for _, v := range s.verifiers {
			if strings.TrimSuffix(v.profile.Issuer, "/") == strings.TrimSuffix(iss, "/") {
				return nil, fmt.Errorf("its issuer %.200q is configured here with another slash at the end: they must be the same", iss)
			}
		}
	}
	return nil, fmt.Errorf("its issuer %.200q is not accepted here: ask the operator of the gateway", iss)
}

// unverifiedIssuer reads the claim iss without looking at the signature.
func unverifiedIssuer(raw string) (string, error) {
	payload, err := jws.Payload(raw, jwks.MaxToken)
	if err != nil {
		return "", err
	}
	c, err := readClaims(payload)
	if err != nil {
		return "", err
	}
	iss, ok := c["iss"].(string)
	if !ok || iss == "" {
		return "", errors.New("claim iss is missing: it is not an ID token")
	}
	return iss, nil
}
