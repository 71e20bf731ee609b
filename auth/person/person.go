// Package person finds out who somebody is who has no key that is known: by
// OpenID Connect, or the OAuth of GitHub, in a browser.
//
//	p, err := person.New(person.Config{Name: "corp", Kind: person.OIDC, URL: "https://login.example.com", …})
//	…
//	flow, err := p.Begin(ctx, "https://terminal.example.com/signin/callback/corp")
//	// The browser is led to flow.URL, and comes back with flow.State and a code.
//	who, err := p.Finish(ctx, flow, code)
//
// What is sent along binds the answer to the question: state, a verifier (PKCE,
// RFC 7636) and, with OpenID Connect, a nonce. Who somebody is rests on what the
// provider never gives to another, and [Authorizer] says what they may enter.
package person

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// The kinds of provider.
const (
	OIDC   = "oidc"   // OpenID Connect, by discovery
	GitHub = "github" // an OAuth app of github.com or of an Enterprise Server
)

// Config is one provider.
type Config struct {
	// Name stands before the colon of an account, as in corp:alice. That of a
	// forge has what is known of the forge's accounts count for the provider's.
	Name string
	Kind string // OIDC or GitHub
	// URL is the issuer, or the base URL of GitHub: empty for github.com.
	URL          string
	ClientID     string
	ClientSecret string
	// Scopes are asked for. Default: openid, profile and email; of GitHub none.
	Scopes []string
	// LoginClaim is the claim that has the login. Default: preferred_username.
	LoginClaim string

	RootCAs   *x509.CertPool // who vouches for the provider; nil: whom the system trusts
	AllowHTTP bool           // http:// for loopback addresses, for tests
}

// ErrUnavailable is wrapped by errors that are the provider's: it is down, slow or
// answers what it should not. Trying again may help.
var ErrUnavailable = errors.New("the provider cannot be asked")

// ErrRefused is wrapped when the provider did answer, and not for the person.
var ErrRefused = errors.New("the provider did not say who this is")

// timeout bounds each request to a provider.
const timeout = 10 * time.Second

// maxAnswer bounds an answer in bytes.
const maxAnswer = 256 << 10

// A Provider knows people. It may be used by many goroutines at once.
type Provider struct {
	config Config
	client *http.Client
	kind   kind
}

// kind is what tells providers apart.
type kind interface {
	// endpoints are where the browser is led, and where codes are exchanged.
	endpoints(ctx context.Context) (oauth2.Endpoint, error)
	// options are sent along by the browser.
	options(f *Flow) []oauth2.AuthCodeOption
	// identify says whose token that is.
	identify(ctx context.Context, f *Flow, token *oauth2.Token) (*auth.Person, error)
}

// nameSyntax is that of names in accounts.
var nameSyntax = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

// New checks the configuration. It asks nobody yet: a provider that is down is
// asked again at each sign-in.
func New(c Config) (*Provider, error) {
	c.Name = strings.ToLower(c.Name)
	switch {
	case !nameSyntax.MatchString(c.Name):
		return nil, fmt.Errorf("name %.64q: use letters, digits, hyphens and dots; it stands before the colon of an account, as in corp:alice", c.Name)
	case c.ClientID == "":
		return nil, errors.New("client_id is missing: the provider gives it when this gateway is registered there")
	case c.Name == GitHub && c.Kind != GitHub:
		return nil, errors.New("the name github is kept for kind: github, as grants name its accounts by it")
	}
	p := &Provider{config: c, client: httpclient.New(httpclient.Options{RootCAs: c.RootCAs, MaxBody: maxAnswer, LoopbackHTTP: c.AllowHTTP})}
	p.client.Timeout = timeout
	var err error
	switch c.Kind {
	case OIDC:
		p.kind, err = newOpenID(p)
	case GitHub:
		p.kind, err = newGitHub(p)
	default:
		err = fmt.Errorf("kind %.40q is not known: it is %s or %s", c.Kind, OIDC, GitHub)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Name is that of the configuration, in lower case.
func (p *Provider) Name() string { return p.config.Name }

// Label is what people call the provider.
func (p *Provider) Label() string {
	if p.config.Name == GitHub {
		return "GitHub"
	}
	return p.config.Name
}

// A Flow is one person's sign-in that is under way. It is to be kept where the
// browser cannot see it, and used for one Finish.
type Flow struct {
	URL   string // where the browser is led
	State string // comes back with the code; 128 bits and more

	verifier string
	nonce    string
	redirect string
}

// Begin starts a sign-in, from which the browser comes back to redirect.
func (p *Provider) Begin(ctx context.Context, redirect string) (*Flow, error) {
	config, err := p.oauth(ctx, redirect)
	if err != nil {
		return nil, err
	}
	f := &Flow{State: rand.Text(), verifier: oauth2.GenerateVerifier(), nonce: rand.Text(), redirect: redirect}
	f.URL = config.AuthCodeURL(f.State, append(p.kind.options(f), oauth2.S256ChallengeOption(f.verifier))...)
	return f, nil
}

// Finish asks the provider whose code that is. Errors wrap ErrUnavailable or
// ErrRefused, and hold neither code nor tokens.
func (p *Provider) Finish(ctx context.Context, f *Flow, code string) (*auth.Person, error) {
	config, err := p.oauth(ctx, f.redirect)
	if err != nil {
		return nil, err
	}
	token, err := config.Exchange(p.context(ctx), code, oauth2.VerifierOption(f.verifier))
	if err != nil {
		return nil, exchangeError(err)
	}
	return p.kind.identify(p.context(ctx), f, token)
}

func (p *Provider) oauth(ctx context.Context, redirect string) (*oauth2.Config, error) {
	endpoint, err := p.kind.endpoints(p.context(ctx))
	if err != nil {
		return nil, err
	}
	return &oauth2.Config{ClientID: p.config.ClientID, ClientSecret: p.config.ClientSecret, Endpoint: endpoint,
		RedirectURL: redirect, Scopes: p.config.Scopes}, nil
}

// context has the libraries use our client.
func (p *Provider) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, p.client)
}

// exchangeError tells what an operator can act on, without the provider's words,
// which may hold what was sent.
func exchangeError(err error) error {
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return fmt.Errorf("%w: token: %w", ErrUnavailable, httpclient.Cause(err))
	}
	if answer.ErrorCode == "" {
		return fmt.Errorf("%w: token: it answers with status %d", ErrUnavailable, answer.Response.StatusCode)
	}
	return fmt.Errorf("%w: token: %s", ErrRefused, clean(answer.ErrorCode, maxWord))
}

const (
	maxWord = 64
	// maxClaim and maxValues bound what is kept of a person, in bytes and items.
	maxClaim  = 256
	maxValues = 256
)

// idSyntax is what an ID looks like in names and logs. Others are hashed.
var idSyntax = regexp.MustCompile(`^[A-Za-z0-9._|@+:/=-]{1,64}$`)

// loginSyntax is that of logins in accounts.
var loginSyntax = regexp.MustCompile(`^[a-z0-9_][a-z0-9._-]{0,63}$`)

// person makes one of what a provider says.
func (p *Provider) person(id, login string, claims map[string][]string) (*auth.Person, error) {
	if id == "" {
		return nil, fmt.Errorf("%w: it gives no ID", ErrRefused)
	}
	if !idSyntax.MatchString(id) {
		sum := sha256.Sum256([]byte(id))
		id = "sha256-" + hex.EncodeToString(sum[:16])
	}
	if login = strings.ToLower(login); !loginSyntax.MatchString(login) {
		login = ""
	}
	return &auth.Person{Provider: p.config.Name, ID: id, Login: login, Claims: claims}, nil
}

// clean makes text of a provider printable, short and of one line.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}
