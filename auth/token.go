package auth

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/stagedoor/stagedoor/auth/internal/jws"
	"github.com/stagedoor/stagedoor/auth/jwks"
)

// What is wrong with a token that is refused. Errors wrap one of them and say
// what the owner of the agent can do; they hold nothing of the token but its task,
// times and claim names.
var (
	ErrTokenExpired = errors.New("token has expired")
	ErrTokenInvalid = errors.New("token is not valid")
	// ErrTokenUnverified: the token may be good, but the keys to verify it with
	// cannot be had at the moment. Another try in a minute can help.
	ErrTokenUnverified = errors.New("token cannot be verified at the moment")
)

// invalid makes the refusal of a token that is not valid.
func invalid(err error) error { return fmt.Errorf("%w: %w", ErrTokenInvalid, plain(err)) }

// DefaultAudience is the audience of host tokens unless another is configured.
const DefaultAudience = "stagedoor"

// maxTokenID bounds what a gateway must remember of each token.
const maxTokenID = 128

// hostTokenTypes are what the typ of a host token may be. Most libraries write
// "JWT", some nothing.
var hostTokenTypes = []string{"JWT", ""}

// A Token is a host token: a JWT (RFC 7519) by which a CI system lets an agent
// register as the host of a task. Its claims are aud, jti, iat, nbf, exp,
// "task" and "grant".
type Token struct {
	Task      TaskID
	ID        string    // claim jti, 1 to 128 printable ASCII characters
	Audience  string    // claim aud; of several, the one that was accepted
	IssuedAt  time.Time // claim iat: the generation of the registration, the later token wins
	NotBefore time.Time // claim nbf; zero: none
	Expires   time.Time // claim exp
	Grant     Grant     // claim "grant"
}

// tokenClaims is a Token in JSON.
type tokenClaims struct {
	Audience  jwt.Audience     `json:"aud"`
	ID        string           `json:"jti"`
	IssuedAt  *jwt.NumericDate `json:"iat"`
	NotBefore *jwt.NumericDate `json:"nbf,omitempty"`
	Expires   *jwt.NumericDate `json:"exp"`
	Task      string           `json:"task"`
	Grant     Grant            `json:"grant"`
}

// MintToken signs a host token: with EdDSA by an ed25519.PrivateKey, with ES256 by
// an *ecdsa.PrivateKey of the curve P-256, with RS256 by an *rsa.PrivateKey of 2048
// bits or more, with HS256 by a []byte of 32 bytes or more. Times are cut to whole seconds. Task and
// Expires are required; by default IssuedAt is now, ID random, and Audience
// [DefaultAudience].
func MintToken(key any, t Token) (string, error) {
	if t.IssuedAt.IsZero() {
		t.IssuedAt = time.Now()
	}
	if t.ID == "" {
		t.ID = rand.Text()
	}
	if t.Audience == "" {
		t.Audience = DefaultAudience
	}
	claims := tokenClaims{
		Audience:  jwt.Audience{t.Audience},
		ID:        t.ID,
		IssuedAt:  numericDate(t.IssuedAt),
		NotBefore: numericDate(t.NotBefore),
		Expires:   numericDate(t.Expires),
		Task:      string(t.Task),
		Grant:     t.Grant,
	}
	if _, err := claims.token(); err != nil {
		return "", fmt.Errorf("mint token for task %q: %w", t.Task, err)
	}
	raw, err := sign(key, hostTokenTypes[0], claims, MaxTokenSize)
	if err != nil {
		return "", fmt.Errorf("mint token for task %q: %w", t.Task, err)
	}
	return raw, nil
}

// token checks what can be checked without a clock: that everything required is
// there and makes sense.
func (c *tokenClaims) token() (*Token, error) {
	t := &Token{ID: c.ID, Grant: c.Grant}
	var err error
	if t.Task, err = claimTask(c.Task); err != nil {
		return nil, err
	}
	if len(c.Audience) == 0 {
		return nil, errors.New("claim aud is missing")
	}
	t.Audience = c.Audience[0]
	if c.ID == "" {
		return nil, errors.New("claim jti is missing: give each token an ID of its own")
	}
	if len(c.ID) > maxTokenID || strings.Trim(c.ID, printableASCII) != "" {
		return nil, fmt.Errorf("claim jti must be at most %d printable ASCII characters", maxTokenID)
	}
	if t.IssuedAt, err = claimTime("iat", c.IssuedAt); err != nil {
		return nil, err
	}
	if t.Expires, err = claimTime("exp", c.Expires); err != nil {
		return nil, err
	}
	if c.NotBefore != nil {
		if t.NotBefore, err = claimTime("nbf", c.NotBefore); err != nil {
			return nil, err
		}
	}
	if !t.Expires.After(t.IssuedAt) {
		return nil, errors.New("claim exp is not after iat: the token was never valid")
	}
	return t, t.Grant.Check()
}

// printableASCII is 0x21 to 0x7e.
var printableASCII = func() string {
	var b strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}()

func claimTask(s string) (TaskID, error) {
	if s == "" {
		return "", errors.New("claim task is missing")
	}
	task, err := ParseTaskID(s)
	if err != nil {
		return "", fmt.Errorf("claim task: %w", err)
	}
	return task, nil
}

// A TokenVerifier checks host tokens. Without keys it refuses all. It may be
// used by many goroutines at once, as long as nobody changes it.
type TokenVerifier struct {
	// Keys are those of which any may have signed: ed25519.PublicKey for EdDSA,
	// *ecdsa.PublicKey of the curve P-256 for ES256, *rsa.PublicKey of 2048 bits or
	// more for RS256, []byte of at least 32 bytes for HS256.
	Keys []any
	// KeySets are asked when none of Keys has signed, never for HS256. The caller
	// closes them.
	KeySets  jwks.Sets
	Audience string           // what aud must name; empty: DefaultAudience
	Leeway   time.Duration    // how far clocks may differ; 0: 30 s, negative: not at all
	MaxTTL   time.Duration    // the longest time from iat to exp; 0: any
	Now      func() time.Time // nil: time.Now
}

// Check says whether the verifier can verify anything: whether it has keys, and
// all are of a supported kind. Verify refuses everything while it cannot.
func (v *TokenVerifier) Check() error {
	_, err := v.algorithms()
	return err
}

func (v *TokenVerifier) algorithms() (algorithms []jose.SignatureAlgorithm, err error) {
	if v == nil || len(v.Keys)+len(v.KeySets) == 0 {
		return nil, errors.New("there is no key to verify host tokens with")
	}
	if len(v.KeySets) > 0 {
		algorithms = jwks.Algorithms()
	}
	for _, key := range v.Keys {
		alg, err := algorithmOf(key)
		if _, private := key.(crypto.Signer); private {
			err = errors.New("a private key is not for verifying: give its public key")
		}
		if err != nil {
			return nil, fmt.Errorf("key for host tokens: %w", err)
		}
		if !slices.Contains(algorithms, alg) {
			algorithms = append(algorithms, alg)
		}
	}
	return algorithms, nil
}

// Verify checks a host token and returns what it says. The error wraps
// [ErrTokenExpired], [ErrTokenInvalid] or [ErrTokenUnverified] and may be shown to
// the agent that sent it. ctx bounds the wait for a key set.
func (v *TokenVerifier) Verify(ctx context.Context, raw string) (*Token, error) {
	algorithms, err := v.algorithms()
	if err != nil {
		return nil, invalid(err)
	}
	claims, err := v.verifyClaims(ctx, raw, algorithms)
	if errors.Is(err, jwks.ErrUnavailable) {
		// The log of the key set knows more. A stranger needs not know about this
		// network.
		return nil, fmt.Errorf("%w: the keys that it may be signed with cannot be had: try again in a minute", ErrTokenUnverified)
	}
	if err != nil {
		return nil, invalid(err)
	}
	t, err := claims.token()
	if err != nil {
		return nil, invalid(err)
	}
	if t.Audience, err = v.checkAudience(claims.Audience); err != nil {
		return nil, invalid(err)
	}
	if err := v.checkTimes(t); err != nil {
		return nil, err
	}
	return t, nil
}

func (v *TokenVerifier) verifyClaims(ctx context.Context, raw string, algorithms []jose.SignatureAlgorithm) (*tokenClaims, error) {
	token, err := jws.Parse(raw, MaxTokenSize, algorithms, hostTokenTypes...)
	if err != nil {
		return nil, err
	}
	payload, err := verify(token, v.Keys)
	if err != nil && len(v.KeySets) > 0 && token.Signatures[0].Header.Algorithm != string(jose.HS256) {
		payload, err = v.KeySets.Verify(ctx, raw)
	}
	if err != nil {
		return nil, err
	}
	var claims tokenClaims
	return &claims, readClaims(payload, &claims)
}

func (v *TokenVerifier) checkAudience(audience jwt.Audience) (string, error) {
	want := v.Audience
	if want == "" {
		want = DefaultAudience
	}
	if !audience.Contains(want) {
		return "", fmt.Errorf("claim aud does not name this gateway (%q), but %.200q", want, []string(audience))
	}
	return want, nil
}

func (v *TokenVerifier) checkTimes(t *Token) error {
	leeway := v.Leeway
	switch {
	case leeway == 0:
		leeway = 30 * time.Second
	case leeway < 0:
		leeway = 0
	}
	now := clock(v.Now)
	switch {
	case !now.Before(t.Expires.Add(leeway)):
		return fmt.Errorf("%w: at %s, the time here is %s: get a new one for task %q", ErrTokenExpired, stamp(t.Expires), stamp(now), t.Task)
	case now.Before(t.NotBefore.Add(-leeway)):
		return fmt.Errorf("%w: it may be used from %s (claim nbf), the time here is %s: check the clocks", ErrTokenInvalid, stamp(t.NotBefore), stamp(now))
	case now.Before(t.IssuedAt.Add(-leeway)):
		return fmt.Errorf("%w: it was issued at %s (claim iat), the time here is %s: check the clocks", ErrTokenInvalid, stamp(t.IssuedAt), stamp(now))
	case v.MaxTTL > 0 && t.Expires.Sub(t.IssuedAt) > v.MaxTTL:
		return fmt.Errorf("%w: it is good for %v, this gateway accepts %v at most", ErrTokenInvalid, t.Expires.Sub(t.IssuedAt), v.MaxTTL)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// DecodeToken reads a host token without verifying signature, audience and
// times: for the agent that found it in its own environment, and needs to know
// its task and grant. The error wraps [ErrTokenInvalid].
func DecodeToken(raw string) (*Token, error) {
	algorithms := append(jwks.Algorithms(), jose.HS256) // never none
	token, err := jws.Parse(raw, MaxTokenSize, algorithms, hostTokenTypes...)
	if err != nil {
		return nil, invalid(err)
	}
	var claims tokenClaims
	if err := readClaims(token.UnsafePayloadWithoutVerification(), &claims); err != nil {
		return nil, invalid(err)
	}
	t, err := claims.token()
	if err != nil {
		return nil, invalid(err)
	}
	return t, nil
}
