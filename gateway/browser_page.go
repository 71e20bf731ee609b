package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth/person"
)

// Where browsers come to sign in. A provider is told the second as the redirect
// URI, with its name behind it: each has its own, so that none can answer for
// another.
const (
	signInPath   = "/signin/"
	callbackPath = "/signin/callback/"
)

// browserCookie tells a browser from others. Its prefix keeps it to this host, and
// to TLS; SameSite=Lax has it come along when a provider sends the browser back.
const browserCookie = "__Host-stagedoor-browser"

// maxForm bounds what a browser posts, in bytes.
const maxForm = 16 << 10

// verdictTime is how long a browser waits for what becomes of its guest.
const verdictTime = 15 * time.Second

var (
	//go:embed assets/signin.html
	signInHTML string
	//go:embed assets/signin.css
	signInCSS string

	signInPage = template.Must(template.New("signin").Parse(signInHTML))

	// signInPolicy lets the page do nothing but be shown and post its form. It has no
	// scripts and fetches nothing.
	signInPolicy = "default-src 'none'; style-src '" + sourceHash(signInCSS) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

func sourceHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// pageData is what the page shows.
type pageData struct {
	CSS  template.CSS
	Host string
	View string // confirm, leading, done or problem

	Title, Words string
	Back         string // where to try again; empty: nowhere

	Code, User, Remote, Token string // confirm
	Providers                 []providerChoice
	Keys                      []string
	RememberFor               string       // empty: it is not offered
	To                        template.URL // leading
	Who                       string       // done
}

// providerChoice is one button.
type providerChoice struct{ Name, Label string }

func (s *Server) addSignIn(mux *http.ServeMux) {
	mux.HandleFunc("GET "+signInPath+"{code}", s.serveSignIn)
	mux.HandleFunc("POST "+signInPath+"{code}", s.serveSignInPressed)
	mux.HandleFunc("GET "+callbackPath+"{provider}", s.serveSignInCallback)
}

// show writes a page.
func (s *Server) show(w http.ResponseWriter, status int, d pageData) {
	d.Host = s.settings.Load().publicHost()
	d.CSS = template.CSS(signInCSS)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", signInPolicy)
	h.Set("Cache-Control", "no-store")
	// With no-referrer browsers would hide the origin of the form from us, too.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	if err := signInPage.Execute(w, d); err != nil {
		s.log.Debug("cannot show a page", "error", err)
	}
}

func (s *Server) problem(w http.ResponseWriter, status int, title, words, back string) {
	s.show(w, status, pageData{View: "problem", Title: title, Words: words, Back: back})
}

// linkOver is for links that lead nowhere, whatever the reason.
func (s *Server) linkOver(w http.ResponseWriter) {
	s.problem(w, http.StatusNotFound, "This link is over", "It was used, its time is up, or the terminal that showed it has gone. Run the ssh command again for a new one.", "")
}

// serveSignIn shows who asks to be let in. It changes nothing: those who look at
// links before their owner does press no buttons.
func (s *Server) serveSignIn(w http.ResponseWriter, r *http.Request) {
	a := s.browsers.find(r.PathValue("code"))
	if a == nil {
		s.linkOver(w)
		return
	}
	browser := browserOf(r)
	if browser == "" {
		browser = rand.Text()
		http.SetCookie(w, &http.Cookie{Name: browserCookie, Value: browser, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	d := pageData{View: "confirm", Title: "Is this your terminal?", Code: a.short, User: clip(a.user), Remote: a.remote, Token: formToken(browser, a.code)}
	for _, p := range a.signIn.Providers {
		d.Providers = append(d.Providers, providerChoice{p.Name(), p.Label()})
	}
	for _, key := range a.keys {
		d.Keys = append(d.Keys, ssh.FingerprintSHA256(key))
	}
	if a.signIn.RememberFor > 0 {
		d.RememberFor = inWords(a.signIn.RememberFor)
	}
	s.show(w, http.StatusOK, d)
}

// inWords is a duration as people read it.
func inWords(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return d.Round(time.Minute).String()
}

// browserOf is the secret of a browser that was here before, empty if it was not.
func browserOf(r *http.Request) string {
	c, err := r.Cookie(browserCookie)
	if err != nil || len(c.Value) > 64 {
		return ""
	}
	return c.Value
}

// formToken is what a form has to hold to be ours, made for this browser.
func formToken(browser, code string) string {
	mac := hmac.New(sha256.New, []byte(browser))
	mac.Write([]byte(code))
	return hex.EncodeToString(mac.Sum(nil))
}

// crossOrigin refuses what another site has a browser post.
var crossOrigin http.CrossOriginProtection

// serveSignInPressed leads a browser to a provider.
func (s *Server) serveSignInPressed(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	code := r.PathValue("code")
	browser, token := browserOf(r), r.PostFormValue("token")
	if crossOrigin.Check(r) != nil || browser == "" || subtle.ConstantTimeCompare([]byte(token), []byte(formToken(browser, code))) != 1 {
		s.problem(w, http.StatusForbidden, "This did not come from here", "The button was not pressed on a page of this gateway, or cookies are off. Open the link once more.", signInPath+url.PathEscape(code))
		return
	}
	a := s.browsers.find(code)
	if a == nil {
		s.linkOver(w)
		return
	}
	p := a.signIn.provider(r.PostFormValue("provider"))
	if p == nil {
		s.problem(w, http.StatusBadRequest, "Choose how to sign in", "There is no such provider here.", signInPath+a.code)
		return
	}
	begun, err := p.Begin(r.Context(), a.url+callbackPath+p.Name())
	if err != nil {
		s.providerFailed(w, a, p, err)
		return
	}
	if !s.browsers.lead(&flow{attempt: a, provider: p, begun: begun, browser: sha256.Sum256([]byte(browser)), remember: r.PostForm["remember"]}) {
		s.linkOver(w)
		return
	}
	// A redirect would be held against form-action, which is to be only ourselves, as
	// would all that follow at the provider.
	s.show(w, http.StatusOK, pageData{View: "leading", Title: "One moment", Words: p.Label(), To: template.URL(begun.URL)})
}

// providerFailed says that the provider is to blame. The reason is for the log.
func (s *Server) providerFailed(w http.ResponseWriter, a *attempt, p *person.Provider, err error) {
	s.log.Warn("cannot sign somebody in", "provider", p.Name(), "remote", a.remote, "error", err)
	title, words := "You are not signed in", p.Label()+" did not say who you are."
	status := http.StatusForbidden
	if errors.Is(err, person.ErrUnavailable) {
		title, words, status = p.Label()+" does not answer", "It may be down, or this gateway cannot reach it. Your terminal still waits.", http.StatusBadGateway
	}
	s.problem(w, status, title, words, signInPath+a.code)
}

// serveSignInCallback takes what a provider sends a browser back with, and tells
// what became of the guest.
func (s *Server) serveSignInCallback(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	f := s.browsers.comeBack(query.Get("state"), r.PathValue("provider"), sha256.Sum256([]byte(browserOf(r))))
	if f == nil {
		s.linkOver(w)
		return
	}
	a := f.attempt
	if query.Get("error") != "" || query.Get("code") == "" {
		s.problem(w, http.StatusForbidden, "You are not signed in", f.provider.Label()+" was asked who you are, and did not say. Your terminal still waits.", signInPath+a.code)
		return
	}
	who, err := f.provider.Finish(r.Context(), f.begun, query.Get("code"))
	if err != nil {
		s.providerFailed(w, a, f.provider, err)
		return
	}
	if !s.browsers.answer(a, personAnswer{who, f.remember}) {
		s.linkOver(w)
		return
	}
	s.showVerdict(w, r, a)
}

// showVerdict waits for the guest's side to judge.
func (s *Server) showVerdict(w http.ResponseWriter, r *http.Request, a *attempt) {
	ctx, cancel := context.WithTimeout(r.Context(), verdictTime)
	defer cancel()
	var v verdict
	select {
	case v = <-a.verdict:
	case <-ctx.Done():
	case <-a.over:
		select { // both may be there
		case v = <-a.verdict:
		default:
		}
	}
	switch {
	case v.admitted:
		s.show(w, http.StatusOK, pageData{View: "done", Title: "You are in", Who: v.who, Words: "Go back to your terminal. This page has done its work."})
	case v.who == "":
		s.problem(w, http.StatusGone, "Your terminal has gone", "It did not wait for you. Run the ssh command again for a new link.", "")
	default:
		s.show(w, http.StatusForbidden, pageData{View: "problem", Title: "Not open to you", Who: v.who,
			Words: "No task of that name lets this account in. Check the name, and that the job has started; or ask whoever runs the job."})
	}
}
