package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/stagedoor/stagedoor/auth/internal/jws"
)

// The type and audience of renewal credentials are their own, so that none
// passes for a host token, nor the other way round, even where both are signed
// with the same key.
const (
	renewalType     = "stagedoor-renewal+jwt"
	renewalAudience = "stagedoor-renewal"
)

// maxRenewalAge is how long after the token was issued a registration without a
// deadline can be renewed: a credential that never ends is not made.
const maxRenewalAge = 30 * 24 * time.Hour

// A Renewal is the credential by which an agent comes back after its tunnel was
// lost, when its host token may long have expired. It is good only together
// with a proof of the agent key, which the tunnel's Hello gives.
type Renewal struct {
	Task     TaskID
	AgentKey ed25519.PublicKey
	IssuedAt time.Time // when the host token was issued: the generation of the registration
	Deadline time.Time // the end of the registration; zero: none, then the credential is good for 30 days from IssuedAt
	Grant    Grant
}

// renewalClaims is a Renewal in JSON.
type renewalClaims struct {
	Audience jwt.Audience     `json:"aud"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	Expires  *jwt.NumericDate `json:"exp"`
	Deadline *jwt.NumericDate `json:"deadline,omitempty"`
	Task     string           `json:"task"`
	AgentKey []byte           `json:"agent_key"`
	Grant    Grant            `json:"grant"`
}

// MintRenewal signs a renewal credential. Times are cut to whole seconds.
func MintRenewal(key ed25519.PrivateKey, r Renewal) (string, error) {
	expires := r.Deadline
	if expires.IsZero() {
		expires = r.IssuedAt.Add(maxRenewalAge)
	}
	claims := renewalClaims{
		Audience: jwt.Audience{renewalAudience},
		IssuedAt: numericDate(r.IssuedAt),
		Expires:  numericDate(expires),
		Deadline: numericDate(r.Deadline),
		Task:     string(r.Task),
		AgentKey: r.AgentKey,
		Grant:    r.Grant,
	}
	if _, err := claims.renewal(); err != nil {
		return "", fmt.Errorf("mint renewal for task %q: %w", r.Task, err)
	}
	raw, err := sign(key, renewalType, claims, MaxRenewalSize)
	if err != nil {
		return "", fmt.Errorf("mint renewal for task %q: %w", r.Task, err)
	}
	return raw, nil
}

func (c *renewalClaims) renewal() (*Renewal, error) {
	r := &Renewal{AgentKey: c.AgentKey, Grant: c.Grant}
	var err error
	if r.Task, err = claimTask(c.Task); err != nil {
		return nil, err
	}
	if len(c.AgentKey) != ed25519.PublicKeySize {
		return nil, errors.New("claim agent_key is not an Ed25519 public key")
	}
	if r.IssuedAt, err = claimTime("iat", c.IssuedAt); err != nil {
		return nil, err
	}
	if c.Deadline != nil {
		if r.Deadline, err = claimTime("deadline", c.Deadline); err != nil {
			return nil, err
		}
	}
	if !slices.Equal(c.Audience, jwt.Audience{renewalAudience}) {
		return nil, fmt.Errorf("claim aud is not %q", renewalAudience)
	}
	return r, r.Grant.Check()
}

// VerifyRenewal checks a renewal credential that one of the keys signed. The
// caller must still compare AgentKey with the key that the agent proved. The
// error wraps [ErrTokenExpired] or [ErrTokenInvalid].
func VerifyRenewal(keys []ed25519.PublicKey, raw string, now time.Time) (*Renewal, error) {
	claims, err := verifyRenewalClaims(keys, raw)
	if err != nil {
		return nil, fmt.Errorf("renewal: %w", invalid(err))
	}
	r, err := claims.renewal()
	if err != nil {
		return nil, fmt.Errorf("renewal: %w", invalid(err))
	}
	expires, err := claimTime("exp", claims.Expires)
	if err != nil {
		return nil, fmt.Errorf("renewal: %w", invalid(err))
	}
	if !now.Before(expires) {
		return nil, fmt.Errorf("renewal: %w: at %s: task %q needs a new token", ErrTokenExpired, stamp(expires), r.Task)
	}
	return r, nil
}

func verifyRenewalClaims(keys []ed25519.PublicKey, raw string) (*renewalClaims, error) {
	token, err := jws.Parse(raw, MaxRenewalSize, []jose.SignatureAlgorithm{jose.EdDSA}, renewalType)
	if err != nil {
		return nil, err
	}
	candidates := make([]any, len(keys))
	for i, key := range keys {
		candidates[i] = key
	}
	payload, err := verify(token, candidates)
	if err != nil {
		return nil, err
	}
	var claims renewalClaims
	return &claims, readClaims(payload, &claims)
}
