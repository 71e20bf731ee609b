package jwks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// maxBody bounds an answer in bytes. The largest key sets have some 20 KiB.
const maxBody = 512 << 10

// Client returns an HTTP client by the options, for key sets and the discovery
// documents that lead to them. A request of it fails unless the answer is a 200
// (or the 304 that it asked for): redirects are not followed. Reading more than
// 512 KiB of a body fails, too. Timeout is left to the caller's context. It
// keeps no connection, so there is nothing to close.
func (o *Options) Client() *http.Client {
	opts := o.forRemote()
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: opts.RootCAs},
		DisableKeepAlives:      true, // minutes go by between two requests
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{Transport: &guard{next: transport, loopback: opts.AllowLoopbackHTTP}}
}

// guard is the RoundTripper that lets nothing unexpected in or out, whoever
// makes the request.
type guard struct {
	next     http.RoundTripper
	loopback bool
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := checkURL(req.URL, g.loopback); err != nil {
		return nil, err
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := checkStatus(req, resp.StatusCode); err != nil {
		resp.Body.Close()
		return nil, err
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

func checkStatus(req *http.Request, status int) error {
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusNotModified && req.Header.Get("If-None-Match") != "":
		return nil
	case status >= 300 && status < 400:
		return fmt.Errorf("it answers with a redirect (status %d), which is not followed: name the address that it leads to", status)
	}
	return fmt.Errorf("it answers with status %d", status)
}

// checkURL lets through what is safe to fetch keys from.
func checkURL(u *url.URL, loopback bool) error {
	switch {
	case u.User != nil:
		return errors.New("a URL with a user name or password is not accepted: key sets are public")
	case u.Hostname() == "":
		return errors.New("the URL names no host")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("the URL has scheme %.16q, https is needed: who sits in between could put in their own keys", u.Scheme)
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// plainURL is a URL without what may be secret.
func plainURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// limitedBody fails, other than io.LimitReader, when there is more.
type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, fmt.Errorf("its answer is longer than %d bytes", maxBody)
	}
	return n, err
}

// fetchFrom returns a loader by HTTP. It asks whether the copy is still good
// (RFC 9110, section 13.1.2) where the other end supports it.
func fetchFrom(resolve func(context.Context) (string, error), o Options) loader {
	client := o.Client()
	return func(ctx context.Context, last *snapshot) (*snapshot, error) {
		location, err := resolve(ctx)
		if err != nil {
			return nil, withoutURL(err, o.Timeout)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
		if err != nil {
			return nil, errors.New("its URL cannot be read")
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		if last != nil && last.etag != "" && last.location == location {
			req.Header.Set("If-None-Match", last.etag)
		}
		s, refused, err := fetch(client, req, last)
		if err != nil {
			return nil, withoutURL(err, o.Timeout)
		}
		for _, why := range refused {
			o.Logger.WarnContext(ctx, "key of a key set is not used", "url", plainURL(req.URL), "error", why)
		}
		s.location = location
		return s, nil
	}
}

func fetch(client *http.Client, req *http.Request, last *snapshot) (s *snapshot, refused []error, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		same := *last
		return &same, nil, nil
	}
	data, err := io.ReadAll(resp.Body)
	if err == nil {
		err = req.Context().Err() // a server that hears of the deadline first can end a cut answer like a whole one
	}
	if err != nil {
		return nil, nil, err
	}
	s = &snapshot{etag: resp.Header.Get("ETag")}
	if len(s.etag) > 1024 {
		s.etag = ""
	}
	s.keys, refused, err = parseSet(data)
	return s, refused, err
}

// withoutURL takes the URL out of an error of net/http: it may hold a
// credential.
func withoutURL(err error, timeout time.Duration) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("there was no full answer within %v", timeout)
	}
	return oneLine(err)
}
