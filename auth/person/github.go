package person

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// gitHub is GitHub's OAuth: it has no ID tokens, so whose token that is has to be
// asked for.
type gitHub struct {
	*Provider
	endpoint oauth2.Endpoint
	user     string // URL of whose token it is
}

// newGitHub knows github.com, whose API has a name of its own, and Enterprise
// Servers.
func newGitHub(p *Provider) (*gitHub, error) {
	base, api := strings.TrimSuffix(p.config.URL, "/"), ""
	if base == "" || base == "https://github.com" {
		base, api = "https://github.com", "https://api.github.com"
	} else {
		api = base + "/api/v3"
	}
	if _, err := httpclient.ParseURL(base, p.config.AllowHTTP); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	return &gitHub{p, oauth2.Endpoint{
		AuthURL: base + "/login/oauth/authorize", TokenURL: base + "/login/oauth/access_token",
		AuthStyle: oauth2.AuthStyleInParams,
	}, api + "/user"}, nil
}

func (g *gitHub) endpoints(context.Context) (oauth2.Endpoint, error) { return g.endpoint, nil }

func (g *gitHub) options(*Flow) []oauth2.AuthCodeOption { return nil }

// identify asks whose token it is. The number is the account's for ever, the login
// may be another's tomorrow.
func (g *gitHub) identify(ctx context.Context, _ *Flow, token *oauth2.Token) (*auth.Person, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.user, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	request.Header.Set("Authorization", "Bearer "+token.AccessToken)
	request.Header.Set("Accept", "application/vnd.github+json")
	request.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	response, err := g.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: account: %w", ErrUnavailable, httpclient.Cause(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: account: it answers with status %d", ErrUnavailable, response.StatusCode)
	}
	var account struct {
		ID    int64  `json:"id"`
		Login string `json:"login"`
		Type  string `json:"type"`
	}
	if err := json.NewDecoder(response.Body).Decode(&account); err != nil {
		return nil, fmt.Errorf("%w: account: the answer cannot be read", ErrUnavailable)
	}
	if account.ID <= 0 || account.Type != "" && account.Type != "User" {
		return nil, fmt.Errorf("%w: that is no person's account", ErrRefused)
	}
	id := strconv.FormatInt(account.ID, 10)
	return g.person(id, account.Login, map[string][]string{"id": {id}, "login": {strings.ToLower(account.Login)}})
}
