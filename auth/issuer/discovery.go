package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// discovery finds the keys of an issuer.
type discovery struct {
	issuer     string
	algorithms []jose.SignatureAlgorithm
	client     *http.Client // of package jwks: HTTPS, no redirects, answers of bounded length
}

// keySet returns the URL of the keys. It is asked anew each time that the keys
// are read, minutes apart: an issuer that moves them is followed.
func (d *discovery) keySet(ctx context.Context) (string, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, d.client), d.issuer)
	if err != nil {
		return "", discoveryError(ctx, err)
	}
	var doc struct {
		Keys       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&doc); err != nil {
		return "", errors.New("its discovery document cannot be read")
	}
	if doc.Keys == "" {
		return "", errors.New("its discovery document names no keys (jwks_uri)")
	}
	ours := func(name string) bool { return slices.Contains(d.algorithms, jose.SignatureAlgorithm(name)) }
	if len(doc.Algorithms) > 0 && !slices.ContainsFunc(doc.Algorithms, ours) {
		return "", fmt.Errorf("it signs with %.200q, accepted is %q: set the algorithms of the issuer", doc.Algorithms, d.algorithms)
	}
	return doc.Keys, nil
}

// discoveryError tells what an operator can act on, without the words of
// whoever answered.
func discoveryError(ctx context.Context, err error) error {
	if mismatch, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return fmt.Errorf("its discovery document is of the issuer %.200q: they must be the same, also in the slash at the end", mismatch.Discovered)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("discovery document: %w", ctx.Err())
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("discovery document: %w", e.Err)
	}
	return errors.New("discovery document: it is too long, cut off, or not JSON of the right form")
}
