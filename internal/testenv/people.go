package testenv

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// The client that an Issuer knows.
const (
	ClientID     = "stagedoor"
	ClientSecret = "client-secret-0123456789"
)

// people is what an Issuer knows of those who sign in by a browser. Guarded by
// Issuer.mu.
type people struct {
	person    map[string]any // who sits at the browser; nil: nobody, who agrees to nothing
	codes     map[string]question
	tokens    map[string]map[string]any // by access token
	intercept func(http.ResponseWriter, *http.Request) bool
}

// question is what a browser came with.
type question struct {
	issuer, redirect, challenge, nonce string
	person                             map[string]any
}

// Roots are who vouches for the issuer.
func (i *Issuer) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.Certificate())
	return pool
}

// SignedIn has a person sit at the browser: with sub and other claims of an ID
// token, or id and login as GitHub has them.
func (i *Issuer) SignedIn(person map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.people.person = person
}

// Intercept has requests answered by f, where that says that it did.
func (i *Issuer) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.people.intercept = f
}

func (i *Issuer) intercepted(w http.ResponseWriter, r *http.Request) bool {
	i.mu.Lock()
	f := i.people.intercept
	i.mu.Unlock()
	return f != nil && f(w, r)
}

// servePeople serves what is asked to sign people in: by OpenID Connect under each
// issuer's path, and as GitHub does.
func (i *Issuer) servePeople(w http.ResponseWriter, r *http.Request) bool {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/authorize"):
		i.authorize(w, r, strings.TrimSuffix(path, "/authorize"))
	case strings.HasSuffix(path, "/token") || path == "/login/oauth/access_token":
		i.exchange(w, r)
	case path == "/api/v3/user":
		i.whose(w, r)
	default:
		return false
	}
	return true
}

// authorize sends the browser back with a code.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request, issuer string) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("state") == "" {
		http.Error(w, "what is this?", http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}}
	if i.people.person == nil {
		back.Set("error", "access_denied")
	} else {
		code := rand.Text()
		if i.people.codes == nil {
			i.people.codes = map[string]question{}
		}
		i.people.codes[code] = question{issuer, q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce"), i.people.person}
		back.Set("code", code)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

// exchange takes a code, once.
func (i *Issuer) exchange(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	code := r.PostFormValue("code")
	asked, ok := i.people.codes[code]
	delete(i.people.codes, code)
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	w.Header().Set("Content-Type", "application/json")
	if !ok || id != ClientID || secret != ClientSecret || r.PostFormValue("redirect_uri") != asked.redirect ||
		subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(asked.challenge)) != 1 {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant"})
		return
	}
	i.hand(w, asked)
}

// hand gives out tokens.
func (i *Issuer) hand(w http.ResponseWriter, asked question) {
	access := rand.Text()
	if i.people.tokens == nil {
		i.people.tokens = map[string]map[string]any{}
	}
	i.people.tokens[access] = asked.person
	claims := map[string]any{"iss": i.URL + asked.issuer, "nonce": asked.nonce}
	maps.Copy(claims, asked.person)
	json.NewEncoder(w).Encode(map[string]any{"access_token": access, "token_type": "bearer", "expires_in": 300, "id_token": i.Token(ClientID, claims)})
}

// whose tells whose access token that is, as GitHub's API does.
func (i *Issuer) whose(w http.ResponseWriter, r *http.Request) {
	access, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	person := i.people.tokens[access]
	if person == nil {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(person)
}
