// Package httpclient makes HTTP clients for asking services that an operator
// named: forges, CI providers, webhooks, providers for signing in. Whoever
// answers is believed in one matter, and trusted with nothing else:
//
//	client := httpclient.New(httpclient.Options{RootCAs: roots})
//	response, err := client.Do(request)
//	if err != nil {
//		return httpclient.Cause(err)
//	}
//	defer response.Body.Close()
//
// Redirects are answers and not followed, as who can redirect could choose who
// answers. Only https goes out. Answers have a bounded length, as they are sent:
// there is no compression that could make much of little. How long a request may
// take is for its context to say.
package httpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// Options say what a client does. The zero value is good for production.
type Options struct {
	RootCAs *x509.CertPool // who vouches for the other end; nil: whom the system trusts
	MaxBody int64          // bytes of an answer, beyond which reading it fails; 0: 64 KiB
	// Idle is how many connections to a host are kept between requests, for 30 s:
	// Client.CloseIdleConnections gives them back. 0: none is kept.
	Idle int
	// LoopbackHTTP lets http URLs of this machine (localhost, 127.0.0.0/8, ::1)
	// pass, for tests.
	LoopbackHTTP bool
}

const (
	defaultMaxBody   = 64 << 10
	maxHeader        = 64 << 10
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 30 * time.Second
)

// New returns a client. It uses the proxy that the environment names
// (HTTPS_PROXY, NO_PROXY).
func New(o Options) *http.Client {
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      o.Idle > 0,
		DisableKeepAlives:      o.Idle <= 0,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    o.Idle,
		IdleConnTimeout:        idleTimeout,
	}
	return &http.Client{
		Transport:     &guard{transport, o},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guard is the RoundTripper that lets nothing unexpected out, nor too much in,
// whoever makes the request.
type guard struct {
	*http.Transport
	o Options
}

// RoundTrip makes a request if it may be made.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := CheckURL(request.URL, g.o.LoopbackHTTP); err != nil {
		return nil, err
	}
	response, err := g.Transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &limitedBody{ReadCloser: response.Body, limit: g.o.MaxBody, left: g.o.MaxBody}
	return response, nil
}

// limitedBody fails, other than io.LimitReader, when there is more.
type limitedBody struct {
	io.ReadCloser
	limit, left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, fmt.Errorf("it is longer than %d bytes", b.limit)
	}
	return n, err
}

// ParseURL reads the URL of a service. The error says what is wrong without the
// URL, which may hold a secret.
func ParseURL(s string, loopbackHTTP bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("its URL cannot be read: write https://host/path")
	}
	return u, CheckURL(u, loopbackHTTP)
}

// CheckURL says what is wrong with the URL of a service, as ParseURL.
func CheckURL(u *url.URL, loopbackHTTP bool) error {
	switch {
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("its URL names no host: write https://host/path")
	case u.User != nil:
		return errors.New("its URL holds a user name or password: leave them out")
	case u.Fragment != "":
		return errors.New("its URL has a fragment (#): leave it out")
	case u.Scheme == "https", u.Scheme == "http" && loopbackHTTP && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("its URL has scheme %.16q, https is needed: who sits in between could answer in its place", u.Scheme)
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// CheckType says whether an answer has a content type, whatever its parameters.
func CheckType(response *http.Response, want string) error {
	contentType := response.Header.Get("Content-Type")
	if got, _, err := mime.ParseMediaType(contentType); err != nil || got != want {
		return fmt.Errorf("content type is %.40q, %s was expected", contentType, want)
	}
	return nil
}

// maxCause bounds the text of a cause in bytes.
const maxCause = 200

// Cause makes an error that may be shown of one by net/http: the cause alone,
// without the URL, which may hold a secret, and printable, as it may quote what
// came in. It wraps nothing but the errors of a context.
func Cause(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	for _, end := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, end) {
			return end
		}
	}
	return printable.Error(err, maxCause)
}
