package issuer

import (
	"errors"
	"net/url"
	"strings"

	"github.com/stagedoor/stagedoor/auth/internal/jws"
	"github.com/stagedoor/stagedoor/auth/jwks"
)

// ErrNotIDToken is returned by [OwnActor] for a token of another kind.
var ErrNotIDToken = errors.New("it is not the ID token of a CI provider")

// OwnActor reads an ID token without verifying it, and returns who it says is
// behind the run; zero if nobody. It is for the job that was given the token and
// has to trust whoever gave it anyway. Which profile is meant shows by the claims.
func OwnActor(raw string) (Actor, error) {
	c, err := ownClaims(raw)
	if err != nil {
		return Actor{}, err
	}
	iss, _ := c["iss"].(string)
	has := func(names ...string) bool {
		for _, name := range names {
			if _, err := c.text(name); err != nil {
				return false
			}
		}
		return true
	}
	switch {
	case has("actor", "actor_id", "run_id", "event_name"):
		return (&Verifier{profile: GitHubActions(gitHubHost(iss))}).actor(c), nil
	case has("user_login", "user_id", "job_id", "project_id"):
		return (&Verifier{profile: GitLabCI(iss)}).actor(c), nil
	}
	return Actor{}, nil
}

func ownClaims(raw string) (claims, error) {
	payload, err := jws.Payload(raw, jwks.MaxToken)
	if err != nil {
		return nil, ErrNotIDToken
	}
	c, err := readClaims(payload)
	if err != nil {
		return nil, err
	}
	// A host token may say who issued it, too.
	if iss, ok := c["iss"].(string); !ok || iss == "" || c["task"] != nil || c["grant"] != nil {
		return nil, ErrNotIDToken
	}
	return c, nil
}

// gitHubHost is what GitHubActions makes an issuer of, "" for github.com.
func gitHubHost(iss string) string {
	u, err := url.Parse(iss)
	if err != nil {
		return ""
	}
	if host, ok := strings.CutPrefix(u.Host, "token.actions."); ok && strings.HasSuffix(host, ".ghe.com") {
		return host
	}
	if u.Path == "/_services/token" {
		return u.Host
	}
	return ""
}
