// Package forge lets guests in by the public keys of their accounts on a forge:
// GitHub, GitLab, Gitea or Forgejo, public or self-hosted.
//
// An [Account] is written github:alice. Names change hands on a forge: whoever
// gives one up, somebody else can take. github:alice#583231 therefore pins the
// numeric ID of the account, which never does: the keys are those of account
// 583231 whatever it is called by now, and never those of a newcomer called
// alice. github:#583231 is enough.
//
// A [Resolver] asks the forges, and remembers. Who runs it owns three calls:
//
//	forges, err := forge.New(forge.Config{Forges: forge.PublicForges()})
//	defer forges.Close()
//	go forges.Watch(ctx, accountsOfAllGrants, nil)   // keeps what is in use current
//	found := forges.Expand(ctx, accountsOfOne)  // when a host registers, once
//	guests := auth.AnyOf{auth.GrantKeys{}, &forge.Authorizer{Resolver: forges, Accounts: accountsOf}}
//
// Signing in then costs no request: the [Authorizer] uses what is known.
//
// # How long a key counts
//
// While [Resolver.Watch] runs and the forge answers, a key that was removed from
// an account stops counting after Config.FreshFor and the time that one look-up
// takes (5 minutes and at most 10 seconds, by default). While the forge does not
// answer, what it said last counts on for Config.StaleFor (1 hour). An account
// that the forge says is gone counts no more at once. A key counts when somebody
// signs in: sessions that run already are not ended.
//
// # Pinned IDs
//
// Keys are listed by name. So keys are read first, and only then the forge's API
// is asked which name the ID has: keys that were read from a name that had
// changed hands meanwhile are thrown away, and those of the present name are
// read. GitLab lists keys by ID too, and is asked so. As GitHub answers a
// stranger's API requests 60 times an hour, an ID is only looked up again when a
// key appears that was not there before, or after Config.VerifiedFor; give the
// forge a Token if there are many accounts.
//
// # What is asked
//
// All by GET, with If-None-Match where the forge gave an ETag:
//
//   - any forge: /USER.keys, which GitHub began and the others copied, and no
//     manual describes; a self-managed GitLab that restricts public visibility
//     redirects it to its sign-in (https://gitlab.com/gitlab-org/gitlab/-/issues/340908),
//     which is what Forge.KeysFromAPI is for
//   - GitHub: /user/ID, "Get a user using their ID", and /users/USER/keys, at
//     https://docs.github.com/en/rest/users/users and
//     https://docs.github.com/en/rest/users/keys; rate limits as in
//     https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
//   - GitLab: /users/ID (which needs a Token), /users?username=USER and
//     /users/ID/keys, at https://docs.gitlab.com/api/users/ and
//     https://docs.gitlab.com/17.5/ee/api/user_keys.html
//   - Gitea and Forgejo: /users/USER, /users/search?uid=ID and /users/USER/keys,
//     at https://docs.gitea.com/api/ (operations userGet, userSearch and
//     userListKeys)
//
// Redirects are never followed. A forge can be made to say anything about its
// own accounts, and nothing about those of another.
package forge

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// Errors of look-ups wrap one of the two.
var (
	// ErrNoAccount: the forge says that there is no such account.
	ErrNoAccount = errors.New("there is no such account")
	// ErrUnavailable: the forge could not be asked, or its answer was of no use,
	// and no earlier answer is young enough.
	ErrUnavailable = errors.New("keys cannot be looked up")
)

// A Kind is the software of a forge.
type Kind string

const (
	GitHub  Kind = "github"  // github.com, and Enterprise Server
	GitLab  Kind = "gitlab"  // gitlab.com, and self-managed
	Gitea   Kind = "gitea"   // there is no public one: URL is required
	Forgejo Kind = "forgejo" // spoken to as Gitea
)

// A Forge is one that accounts may be on.
type Forge struct {
	// Name is what stands before the colon of an account: letters, digits,
	// dots and hyphens, such as github or gitlab.example.com. Required.
	Name string
	Kind Kind // required
	// URL is where it is, such as https://gitlab.example.com. Empty:
	// https://github.com or https://gitlab.com, by kind.
	URL string
	// APIURL is where its API is. Empty: https://api.github.com for github.com,
	// and /api/v3 (GitHub), /api/v4 (GitLab) or /api/v1 (Gitea) under URL.
	APIURL string
	// Token, when not empty, goes with requests to APIURL, and nowhere else. It
	// needs no more than to read public accounts: on GitHub a fine-grained token
	// without any permission, on GitLab the scope read_user, on Gitea read:user.
	// To GitHub's strangers, managed users of an enterprise do not exist.
	Token string
	// KeysFromAPI has keys read from the API in place of /USER.keys, for a forge
	// that shows those to nobody who has not signed in.
	KeysFromAPI bool
}

// PublicForges are github (github.com), gitlab (gitlab.com) and codeberg
// (codeberg.org).
func PublicForges() []Forge {
	return []Forge{
		{Name: "github", Kind: GitHub},
		{Name: "gitlab", Kind: GitLab},
		{Name: "codeberg", Kind: Forgejo, URL: "https://codeberg.org"},
	}
}

// String leaves the token out.
func (f Forge) String() string { return fmt.Sprintf("%s (%s)", f.Name, f.Kind) }

// GoString leaves the token out.
func (f Forge) GoString() string { return f.String() }

// places fills in where forge and API are.
func (f *Forge) places(allowHTTP bool) (web, api *url.URL, err error) {
	at := f.URL
	if at == "" {
		at = map[Kind]string{GitHub: "https://github.com", GitLab: "https://gitlab.com"}[f.Kind]
	}
	if at == "" {
		return nil, nil, errors.New("its URL is missing")
	}
	if web, err = parseURL(at, allowHTTP); err != nil {
		return nil, nil, err
	}
	if f.APIURL != "" {
		api, err = parseURL(f.APIURL, allowHTTP)
		return web, api, err
	}
	return web, f.defaultAPI(web), nil
}

func (f *Forge) defaultAPI(web *url.URL) *url.URL {
	switch f.Kind {
	case GitHub:
		if web.Host == "github.com" || strings.HasSuffix(web.Host, ".ghe.com") {
			return &url.URL{Scheme: "https", Host: "api." + web.Host}
		}
		return web.JoinPath("api", "v3")
	case GitLab:
		return web.JoinPath("api", "v4")
	}
	return web.JoinPath("api", "v1")
}

// parseURL takes https, and http for loopback addresses where that is allowed.
// What is wrong is said without the URL: it may hold a password.
func parseURL(s string, allowHTTP bool) (*url.URL, error) {
	u, err := httpclient.ParseURL(s, allowHTTP)
	if err == nil && u.RawQuery != "" {
		err = errors.New("its URL has a query: leave it out")
	}
	return u, err
}

// checkName says what is wrong with the name of a forge.
func checkName(s string) error {
	if s == "" || len(s) > maxForgeName {
		return fmt.Errorf("the name of a forge has 1 to %d characters", maxForgeName)
	}
	if strings.Trim(s, ".-") != s || strings.Contains(s, "..") || strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && r != '.' && r != '-' }) {
		return fmt.Errorf("%.64q is no name of a forge: use letters, digits, dots and hyphens, such as github or gitlab.example.com", s)
	}
	return nil
}
