package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// maxBody bounds an answer in bytes. The largest key sets have some 20 KiB.
const maxBody = 512 << 10

// Client returns an HTTP client by the options, for key sets and the discovery
// documents that lead to them, see package httpclient. A request of it fails
// unless the answer is a 200 (or the 304 that it asked for), and so does reading
// more than 512 KiB of a body. Timeout is left to the caller's context. It keeps
// no connection, so there is nothing to close.
func (o *Options) Client() *http.Client {
	opts := o.withDefaults()
	client := httpclient.New(httpclient.Options{RootCAs: opts.RootCAs, MaxBody: maxBody, LoopbackHTTP: opts.AllowLoopbackHTTP})
	client.Transport = onlyOK{client.Transport}
	return client
}

// onlyOK is the RoundTripper to which any other answer is an error: a library
// that it is handed to may think otherwise of a redirect.
type onlyOK struct{ http.RoundTripper }

func (o onlyOK) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := checkStatus(req, resp.StatusCode); err != nil {
		resp.Body.Close()
		return nil, err
	}
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

// plainURL is a URL without what may be secret.
func plainURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// fetchFrom returns a loader by HTTP. It asks whether the copy is still good
// (RFC 9110, section 13.1.2) where the other end supports it.
func fetchFrom(resolve func(context.Context) (string, error), o Options) loader {
	client := o.Client()
	return func(ctx context.Context, last *snapshot) (*snapshot, error) {
		location, err := resolve(ctx)
		if err != nil {
			return nil, causeOf(err, o.Timeout)
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
			return nil, causeOf(err, o.Timeout)
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

// causeOf says why an attempt failed, without the URL: it may hold a credential.
func causeOf(err error, timeout time.Duration) error {
	err = httpclient.Cause(err)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("there was no full answer within %v", timeout)
	}
	return err
}
