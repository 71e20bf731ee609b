package testenv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// Browser is what a person sits at who signs in: it keeps cookies and follows
// redirects, and presses buttons when it is told to.
type Browser struct {
	*http.Client
	t testing.TB
}

// NewBrowser makes one that trusts roots. Names in resolve are dialled at the
// address beside them.
func NewBrowser(t testing.TB, roots *x509.CertPool, resolve map[string]string) *Browser {
	jar, err := cookiejar.New(nil)
	check(t, err)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, _ := net.SplitHostPort(address); resolve[host] != "" {
				address = resolve[host]
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	return &Browser{&http.Client{Transport: transport, Jar: jar, Timeout: Patience}, t}
}

// Page is what a browser shows.
type Page struct {
	Status int
	Header http.Header
	Text   string
	t      testing.TB
}

func (b *Browser) do(r *http.Request) Page {
	b.t.Helper()
	resp, err := b.Do(r)
	check(b.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(b.t, err)
	return Page{resp.StatusCode, resp.Header, string(body), b.t}
}

// Open opens a link.
func (b *Browser) Open(link string) Page {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, link, nil)
	check(b.t, err)
	return b.do(r)
}

var (
	formToken = regexp.MustCompile(`name="token" value="([^"]+)"`)
	refresh   = regexp.MustCompile(`content="0;url=([^"]+)"`)
)

// Press presses the button of a provider on a page that was opened by link, and
// ticks boxes. change changes the request.
func (b *Browser) Press(link string, p Page, provider string, ticked []string, change ...func(*http.Request)) Page {
	b.t.Helper()
	form := url.Values{"provider": {provider}, "remember": ticked}
	if m := formToken.FindStringSubmatch(p.Text); m != nil {
		form.Set("token", m[1])
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, link, strings.NewReader(form.Encode()))
	check(b.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, f := range change {
		f(r)
	}
	return b.do(r)
}

// Leads reports whether a page sends the browser on.
func (p Page) Leads() bool { return refresh.MatchString(p.Text) }

// To is where it does.
func (p Page) To() string {
	p.t.Helper()
	m := refresh.FindStringSubmatch(p.Text)
	if m == nil {
		p.t.Fatalf("status %d, and it leads nowhere:\n%s", p.Status, p.Text)
	}
	return html.UnescapeString(m[1])
}

// SignIn does all that a person does at a link, and returns the last page.
func (b *Browser) SignIn(link, provider string, ticked ...string) Page {
	b.t.Helper()
	return b.Open(b.Press(link, b.Open(link), provider, ticked).To())
}
