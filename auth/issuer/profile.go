package issuer

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth/jwks"
)

// A Profile says what the tokens of an issuer look like and which are accepted.
// [GitHubActions], [GitLabCI], [Buildkite], [CircleCI] and [Generic] return one
// to start from. A verifier keeps its maps and lists: they must not be changed
// any more.
type Profile struct {
	// Name is for logs and identities: 1 to 31 of a-z, 0-9 and hyphen.
	Name string
	// Issuer is what the claim iss must be, letter by letter: an https URL.
	Issuer string
	// Algorithms are those that tokens may be signed with, of EdDSA, ES256 and
	// RS256. Empty: RS256, which every provider uses.
	Algorithms []string
	// Require lists claims and the patterns of which one must match each: the
	// value itself, or with * for any characters. All claims must be there and
	// not be empty; "*" asks for no more than that. Letters of different case
	// are different.
	Require map[string][]string
	// Tenant lists claims that say whose job it is. At least one must be in
	// Require, with patterns that begin with a whole name: "acme", "acme/*",
	// never "acme*" or "*". IDs are better than names, which others can take
	// over when they are given up. Empty: the issuer has one tenant, us.
	Tenant []string
	// Task is the [Template] of the task's name.
	Task string
	// Actor says where the person is found.
	Actor ActorClaims
	// TriggeringActor lets jobs of GitHub Actions declare who pressed re-run, as
	// [LabelTriggeringActor]: see [Identity.TriggeringActor]. It is the word of the
	// job: whoever can change what it runs can then let anybody in to it.
	TriggeringActor bool
	// NoTokenID is set for providers whose tokens have no jti. They are told
	// apart by their claims instead: two of the same job in the same second are
	// one.
	NoTokenID bool
}

// ActorClaims say which claims hold the person behind a run. The zero value
// finds nobody.
type ActorClaims struct {
	Forge string // name of the forge whose accounts the claims name, as in forge.Forge
	ID    string // claim with the numeric ID
	Login string // claim with the name
	// When restricts it to runs whose claims match, as in Profile.Require: those
	// that nobody can set off who has no business in the repository.
	When map[string][]string
}

// maxRequire bounds claims and patterns that are compared for every token.
const maxRequire = 64

// check says what is wrong with a profile.
func (p *Profile) check() error {
	if len(p.Name) > 31 || p.Name == "" || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("name %.64q: use 1 to 31 of a-z, 0-9 and hyphen", p.Name)
	}
	if err := checkIssuer(p.Issuer); err != nil {
		return err
	}
	if _, err := p.algorithms(); err != nil {
		return err
	}
	for _, rules := range []map[string][]string{p.Require, p.Actor.When} {
		if err := checkRules(rules); err != nil {
			return err
		}
	}
	if a := p.Actor; (a.ID == "") != (a.Login == "") || (a.ID == "") != (a.Forge == "") {
		return errors.New("actor: forge, id and login are needed together")
	}
	if p.TriggeringActor && p.Actor.ID != "actor_id" {
		return errors.New("triggering_actor: only jobs of GitHub Actions declare who pressed re-run")
	}
	return p.checkTenant()
}

// checkIssuer: the URL is what the discovery document is found at, and is
// compared as text.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		return errors.New("issuer is missing: name its URL as in the claim iss of its tokens")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("issuer %.200q is not an https URL", issuer)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#"):
		return errors.New("issuer: a URL with a user, a query or a fragment names no issuer (OpenID Connect Discovery 1.0, section 3)")
	}
	return nil
}

func (p *Profile) algorithms() ([]jose.SignatureAlgorithm, error) {
	if len(p.Algorithms) == 0 {
		return []jose.SignatureAlgorithm{jose.RS256}, nil
	}
	var list []jose.SignatureAlgorithm
	for _, name := range p.Algorithms {
		if !slices.Contains(jwks.Algorithms(), jose.SignatureAlgorithm(name)) {
			return nil, fmt.Errorf("algorithm %.64q is not supported: there are %q", name, jwks.Algorithms())
		}
		list = append(list, jose.SignatureAlgorithm(name))
	}
	return list, nil
}

func checkRules(rules map[string][]string) error {
	n := 0
	for claim, patterns := range rules {
		n += max(1, len(patterns))
		if claim == "" || len(patterns) == 0 || slices.Contains(patterns, "") {
			return fmt.Errorf("require %.64q: a claim and patterns that are not empty are needed: an empty claim never counts", claim)
		}
	}
	if n > maxRequire {
		return fmt.Errorf("require: %d patterns, %d are allowed", n, maxRequire)
	}
	return nil
}

func (p *Profile) checkTenant() error {
	tenant := p.Tenant
	for _, known := range []Profile{GitHubActions(""), GitLabCI(""), Buildkite(), CircleCI("")} {
		if len(tenant) == 0 && p.Issuer == known.Issuer {
			tenant = known.Tenant // of a profile made by hand
		}
	}
	if len(tenant) == 0 {
		return nil
	}
	for _, claim := range tenant {
		patterns := p.Require[claim]
		if len(patterns) > 0 && !slices.ContainsFunc(patterns, func(s string) bool { return !namesTenant(s) }) {
			return nil
		}
	}
	return fmt.Errorf("issuer %s signs for everybody who has an account there: require one of the claims %q, each with values that begin with a whole name (\"acme\", \"acme/*\")",
		p.Issuer, tenant)
}

// namesTenant wants a * to come after a slash: nobody else can have a name
// before it.
func namesTenant(pattern string) bool {
	before, _, wild := strings.Cut(pattern, "*")
	return !wild || strings.LastIndexByte(before, '/') > 0
}
