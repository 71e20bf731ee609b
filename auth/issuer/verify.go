package issuer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/jwks"
)

// Options say how tokens are verified. The zero value, and nil, are good for
// production.
type Options struct {
	Leeway time.Duration // how far clocks may differ; 0: 30 s, negative: not at all
	MaxTTL time.Duration // the longest time from iat to exp; 0: any
	// Keys says how the issuer's keys are fetched and kept. Its clock is the
	// verifier's, and its log is told why they cannot be had.
	Keys jwks.Options
}

// A Verifier checks the tokens of one issuer. It may be used by many goroutines
// at once.
type Verifier struct {
	profile    Profile
	audience   string
	task       *Template
	algorithms []jose.SignatureAlgorithm
	keys       *jwks.Set
	leeway     time.Duration
	maxTTL     time.Duration
	now        func() time.Time
}

// New returns a verifier of tokens that were requested for the audience, which
// is to be this gateway's alone: its URL is a good one. The error says what is
// wrong with the profile; the issuer is not asked yet. Close it.
func New(p Profile, audience string, o *Options) (*Verifier, error) {
	if o == nil {
		o = &Options{}
	}
	if audience == "" {
		return nil, fmt.Errorf("issuer %s: no audience is set: use one that is this gateway's alone, such as its URL", p.Name)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("issuer %s: %w", p.Name, err)
	}
	task, err := ParseTemplate(p.Task)
	if err != nil {
		return nil, fmt.Errorf("issuer %s: %w", p.Name, err)
	}
	algorithms, err := p.algorithms()
	if err != nil {
		return nil, fmt.Errorf("issuer %s: %w", p.Name, err)
	}
	if strings.HasPrefix(p.Issuer, "http:") && !o.Keys.AllowLoopbackHTTP {
		return nil, fmt.Errorf("issuer %s: %.200q is not an https URL: who sits in between could put in their own keys", p.Name, p.Issuer)
	}
	v := &Verifier{profile: p, audience: audience, task: task, algorithms: algorithms, leeway: o.Leeway, maxTTL: o.MaxTTL, now: o.Keys.Now}
	if v.now == nil {
		v.now = time.Now
	}
	switch {
	case v.leeway == 0:
		v.leeway = 30 * time.Second
	case v.leeway < 0:
		v.leeway = 0
	}
	d := &discovery{issuer: p.Issuer, algorithms: algorithms, client: o.Keys.Client()}
	v.keys = jwks.NewResolved(p.Issuer, d.keySet, &o.Keys)
	return v, nil
}

// Close ends what is under way, and waits for it.
func (v *Verifier) Close() { v.keys.Close() }

// Check asks the issuer for its keys, and says why they cannot be had: for the
// start of a program. It tells more than strangers need to know.
func (v *Verifier) Check(ctx context.Context) error {
	if err := v.keys.Refresh(ctx); err != nil {
		return fmt.Errorf("issuer %s: %w", v.profile.Name, err)
	}
	return nil
}

// Verify checks a token and returns what it says. The error wraps
// auth.ErrTokenExpired, auth.ErrTokenInvalid or auth.ErrTokenUnverified.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Identity, error) {
	payload, err := v.keys.Verify(ctx, raw, v.algorithms...)
	switch {
	case errors.Is(err, jwks.ErrUnavailable):
		// The log knows more. A stranger needs not know about this network.
		return nil, fmt.Errorf("%w: the keys of %s cannot be had: try again in a minute", auth.ErrTokenUnverified, v.profile.Issuer)
	case err != nil:
		return nil, invalid(err)
	}
	c, err := readClaims(payload)
	if err != nil {
		return nil, invalid(err)
	}
	id, err := v.identity(c)
	if err != nil {
		return nil, err
	}
	id.ID, err = v.tokenID(c, payload)
	if err != nil {
		return nil, invalid(err)
	}
	return id, nil
}

func invalid(err error) error { return fmt.Errorf("%w: %w", auth.ErrTokenInvalid, err) }

func (v *Verifier) identity(c claims) (*Identity, error) {
	id := &Identity{Provider: v.profile.Name, Issuer: v.profile.Issuer}
	if iss, ok := c["iss"].(string); !ok || iss != v.profile.Issuer {
		return nil, invalid(fmt.Errorf("claim iss is not %q", v.profile.Issuer))
	}
	if err := v.checkAudience(c); err != nil {
		return nil, invalid(err)
	}
	if err := v.times(c, id); err != nil {
		return nil, err
	}
	if err := unmet(v.profile.Require, c); err != nil {
		return nil, invalid(err)
	}
	task, err := v.task.execute(c)
	if err != nil {
		return nil, invalid(err)
	}
	id.Task, id.Actor, id.Claims = task, v.actor(c), c.texts()
	if v.declares(c) {
		id.rerunOn = v.profile.Actor.Forge
	}
	return id, nil
}

// checkAudience wants the one audience: a token that is meant for others as
// well could be passed on by them.
func (v *Verifier) checkAudience(c claims) error {
	got, err := c.audiences()
	switch {
	case err != nil:
		return err
	case len(got) != 1:
		return fmt.Errorf("claim aud names %d audiences: request a token for %q alone", len(got), v.audience)
	case got[0] != v.audience:
		return fmt.Errorf("claim aud is %.200q: request a token for the audience %q", got[0], v.audience)
	}
	return nil
}

// times checks and sets the times of an identity.
func (v *Verifier) times(c claims, id *Identity) (err error) {
	var notBefore time.Time
	if id.Expires, err = c.time("exp", true); err != nil {
		return invalid(err)
	}
	if id.IssuedAt, err = c.time("iat", true); err != nil {
		return invalid(err)
	}
	if notBefore, err = c.time("nbf", false); err != nil {
		return invalid(err)
	}
	now, ttl := v.now(), id.Expires.Sub(id.IssuedAt)
	switch {
	case ttl <= 0:
		return invalid(errors.New("claim exp is not after iat: the token was never valid"))
	case !now.Before(id.Expires.Add(v.leeway)):
		return fmt.Errorf("%w: at %s, the time here is %s: have the job request a new one", auth.ErrTokenExpired, stamp(id.Expires), stamp(now))
	case now.Before(notBefore.Add(-v.leeway)):
		return invalid(fmt.Errorf("it may be used from %s (claim nbf), the time here is %s: check the clocks", stamp(notBefore), stamp(now)))
	case now.Before(id.IssuedAt.Add(-v.leeway)):
		return invalid(fmt.Errorf("it was issued at %s (claim iat), the time here is %s: check the clocks", stamp(id.IssuedAt), stamp(now)))
	case v.maxTTL > 0 && ttl > v.maxTTL:
		return invalid(fmt.Errorf("it is good for %v, this gateway accepts %v at most", ttl, v.maxTTL))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

var (
	accountLogin = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$`)
	tokenID      = regexp.MustCompile(`^[!-~]{1,96}$`) // with a name and a colon 128 at most
)

// actor returns the person behind the run, if there is one. What is odd is
// nobody: a job needs no person, but one who is misread would be let in. A
// login with brackets is a program's ("dependabot[bot]").
func (v *Verifier) actor(c claims) Actor {
	from := v.profile.Actor
	if from.ID == "" || unmet(from.When, c) != nil {
		return Actor{}
	}
	number, err := c.text(from.ID)
	if err != nil {
		return Actor{}
	}
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil || id <= 0 || strconv.FormatInt(id, 10) != number {
		return Actor{}
	}
	login, err := c.text(from.Login)
	if err != nil || !accountLogin.MatchString(login) {
		return Actor{}
	}
	return Actor{Forge: from.Forge, Login: strings.ToLower(login), ID: id}
}

// tokenID returns Identity.ID. The digest is of the payload and not of the whole
// token: an ES256 signature can be written in two ways by anybody.
func (v *Verifier) tokenID(c claims, payload []byte) (string, error) {
	if v.profile.NoTokenID {
		return fmt.Sprintf("%s:%x", v.profile.Name, sha256.Sum256(payload)), nil
	}
	jti, ok := c["jti"].(string)
	switch {
	case c["jti"] == nil:
		return "", errors.New("claim jti is missing")
	case !ok || !tokenID.MatchString(jti):
		return "", errors.New("claim jti must be 1 to 96 printable ASCII characters")
	}
	return v.profile.Name + ":" + jti, nil
}
