package person

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// discoveredFor is how long a discovery document counts.
const discoveredFor = time.Hour

// openID is a provider of OpenID Connect.
type openID struct {
	*Provider

	mu    sync.Mutex // guards what follows
	found *oidc.Provider
	until time.Time
}

func newOpenID(p *Provider) (*openID, error) {
	if _, err := httpclient.ParseURL(p.config.URL, p.config.AllowHTTP); err != nil {
		return nil, fmt.Errorf("url, the issuer: %w", err)
	}
	if p.config.Scopes == nil {
		p.config.Scopes = []string{oidc.ScopeOpenID, "profile", "email"}
	}
	if !slices.Contains(p.config.Scopes, oidc.ScopeOpenID) {
		return nil, errors.New("scopes: openid is missing, without which the provider does not say who somebody is")
	}
	if p.config.LoginClaim == "" {
		p.config.LoginClaim = "preferred_username"
	}
	return &openID{Provider: p}, nil
}

// discover returns what the provider says of itself. Whoever comes while that is
// asked for asks, too: nobody waits longer than for one answer.
func (o *openID) discover(ctx context.Context) (*oidc.Provider, error) {
	o.mu.Lock()
	found, fresh := o.found, time.Now().Before(o.until)
	o.mu.Unlock()
	if found != nil && fresh {
		return found, nil
	}
	asked, err := oidc.NewProvider(ctx, o.config.URL)
	switch {
	case err == nil:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.found, o.until = asked, time.Now().Add(discoveredFor)
		return asked, nil
	case found != nil:
		return found, nil // it moves seldom
	}
	if mismatch, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return nil, fmt.Errorf("%w: its discovery document is of the issuer %.200q: url must be the same, also in the slash at the end", ErrUnavailable, clean(mismatch.Discovered, maxClaim))
	}
	return nil, fmt.Errorf("%w: discovery document: %w", ErrUnavailable, httpclient.Cause(err))
}

func (o *openID) endpoints(ctx context.Context) (oauth2.Endpoint, error) {
	found, err := o.discover(ctx)
	if err != nil {
		return oauth2.Endpoint{}, err
	}
	endpoint := found.Endpoint()
	if _, err := httpclient.ParseURL(endpoint.AuthURL, o.config.AllowHTTP); err != nil {
		return oauth2.Endpoint{}, fmt.Errorf("%w: authorization_endpoint in its discovery document: %w", ErrUnavailable, err)
	}
	return endpoint, nil
}

func (o *openID) options(f *Flow) []oauth2.AuthCodeOption {
	return []oauth2.AuthCodeOption{oidc.Nonce(f.nonce)}
}

// identify believes the ID token, once its signature, issuer, audience, times and
// nonce are as they have to be.
func (o *openID) identify(ctx context.Context, f *Flow, token *oauth2.Token) (*auth.Person, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok || len(raw) > auth.MaxTokenSize {
		return nil, fmt.Errorf("%w: it sent no ID token: is this a client of OpenID Connect there?", ErrRefused)
	}
	found, err := o.discover(ctx)
	if err != nil {
		return nil, err
	}
	id, err := found.Verifier(&oidc.Config{ClientID: o.config.ClientID}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: its ID token does not verify: %s", ErrRefused, verifyReason(err))
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.nonce)) != 1 {
		return nil, fmt.Errorf("%w: its ID token is for another sign-in (nonce)", ErrRefused)
	}
	var all map[string]any
	if err := id.Claims(&all); err != nil {
		return nil, fmt.Errorf("%w: the claims of its ID token cannot be read", ErrRefused)
	}
	claims := texts(all)
	login := ""
	if values := claims[o.config.LoginClaim]; len(values) == 1 {
		login = values[0]
	}
	return o.person(id.Subject, login, claims)
}

// verifyReason says what is wrong with an ID token without quoting it.
func verifyReason(err error) string {
	if _, ok := errors.AsType[*oidc.TokenExpiredError](err); ok {
		return "it has expired: is a clock wrong?"
	}
	return "signature, issuer, audience or time are wrong, or its keys cannot be read"
}

// texts are those claims that are text, numbers, truth values or lists of text. An
// address that the provider has not verified is left out: who may write any there
// would be let in as its owner.
func texts(all map[string]any) map[string][]string {
	claims := map[string][]string{}
	for name, value := range all {
		switch value := value.(type) {
		case string:
			claims[name] = []string{value}
		case bool:
			claims[name] = []string{strconv.FormatBool(value)}
		case float64:
			claims[name] = []string{strconv.FormatFloat(value, 'f', -1, 64)}
		case []any:
			for _, item := range value[:min(len(value), maxValues)] {
				if text, ok := item.(string); ok {
					claims[name] = append(claims[name], text)
				}
			}
		}
	}
	for name, values := range claims {
		claims[name] = slices.DeleteFunc(values, func(s string) bool { return len(s) > maxClaim })
	}
	if !slices.Equal(claims["email_verified"], []string{"true"}) {
		delete(claims, "email")
	}
	return claims
}
