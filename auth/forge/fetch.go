package forge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// How a forge is spared.
const (
	atOnce   = 4                // requests under way to one forge
	minPause = time.Second      // after it asked for one
	maxPause = time.Hour        // …however long it asked for
	noHint   = time.Minute      // when it did not say how long, as GitHub wants it
	patience = 3                // requests in a row that may go without an answer
	deadFor  = 15 * time.Second // how long it is then taken to be down
)

var (
	errNotJSON = errors.New("it is not the JSON that was expected")
	// errMoved: a redirect. A name that has changed leads to one, and so does a
	// page for signing in.
	errMoved = fmt.Errorf("%w: redirected", ErrUnavailable)
	// errNotAsked: no request was made.
	errNotAsked = fmt.Errorf("%w now", ErrUnavailable)
)

// A site is a configured forge, with what is known about how it is.
type site struct {
	Forge
	web, api *url.URL
	client   *http.Client
	now      func() time.Time
	slots    chan struct{}

	mu     sync.Mutex // guards what follows
	budget budget
	paused map[bool]time.Time // by whether it is the API: nothing is asked before that
	silent map[bool]int       // requests in a row that went without an answer
}

// An answer is what a request brought.
type answer struct {
	body      []byte
	etag      string
	unchanged bool // 304: no body, it is what the ETag stands for
	more      bool // there are further pages
}

// get asks the forge. Errors wrap ErrNoAccount for a 404, and ErrUnavailable for
// all else.
func (s *site) get(ctx context.Context, u *url.URL, etag string, api bool) (*answer, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s has too much to answer: try again later", errNotAsked, s.Name)
	}
	if err := s.mayAsk(api); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: its address cannot be used", ErrUnavailable)
	}
	s.setHeaders(request, etag, api)
	response, err := s.client.Do(request)
	s.heard(ctx, api, err)
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not answer: %w", ErrUnavailable, s.Name, httpclient.Cause(err))
	}
	defer response.Body.Close()
	return s.read(response, etag, api)
}

func (s *site) setHeaders(request *http.Request, etag string, api bool) {
	h := request.Header
	h.Set("User-Agent", "stagedoor") // GitHub answers nobody without
	h.Set("Cache-Control", "no-cache")
	h.Set("Accept", "text/plain")
	if etag != "" {
		h.Set("If-None-Match", etag)
	}
	if !api {
		return
	}
	h.Set("Accept", "application/json")
	if s.Kind == GitHub {
		h.Set("Accept", "application/vnd.github+json")
		h.Set("X-GitHub-Api-Version", "2022-11-28")
	}
	switch {
	case s.Token == "":
	case s.Kind == GitLab:
		h.Set("PRIVATE-TOKEN", s.Token)
	case s.Kind == GitHub:
		h.Set("Authorization", "Bearer "+s.Token)
	default:
		h.Set("Authorization", "token "+s.Token)
	}
}

// read makes an answer, or an error, of a response.
func (s *site) read(response *http.Response, etag string, api bool) (*answer, error) {
	status := response.StatusCode
	switch {
	case status == http.StatusOK:
		return readBody(s.Name, response, api)
	case status == http.StatusNotModified && etag != "":
		return &answer{etag: etag, unchanged: true}, nil
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("%w on %s", ErrNoAccount, s.Name)
	case status == http.StatusUnauthorized && api && s.Token != "":
		return nil, fmt.Errorf("%w: %s does not accept the API token (status 401): renew it", ErrUnavailable, s.Name)
	case 300 <= status && status < 400:
		return nil, fmt.Errorf("%w by %s to %.100q (status %d): is its URL right, and are keys shown without signing in?",
			errMoved, s.Name, response.Header.Get("Location"), status)
	case s.slowDown(response, api):
		return nil, fmt.Errorf("%w: %s wants fewer requests (status %d): it is asked again later; an API token raises its limit", ErrUnavailable, s.Name, status)
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && api:
		return nil, fmt.Errorf("%w: the API of %s answers nobody without a token, or with that one (status %d)", ErrUnavailable, s.Name, status)
	}
	return nil, fmt.Errorf("%w: %s answers with status %d", ErrUnavailable, s.Name, status)
}

func readBody(name string, response *http.Response, api bool) (*answer, error) {
	want := "text/plain"
	if api {
		want = "application/json"
	}
	if err := httpclient.CheckType(response, want); err != nil {
		return nil, fmt.Errorf("%w: the answer of %s: %w: is its URL right?", ErrUnavailable, name, err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: the answer of %s cannot be read: %w", ErrUnavailable, name, httpclient.Cause(err))
	}
	return &answer{body: body, etag: etagOf(response), more: strings.Contains(response.Header.Get("Link"), `rel="next"`)}, nil // RFC 8288
}

// etagOf bounds what is kept and sent back.
func etagOf(response *http.Response) string {
	etag := response.Header.Get("ETag")
	if len(etag) > 256 || strings.ContainsFunc(etag, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "" // it could not be sent
	}
	return etag
}

// mayAsk keeps to what the forge asked for, and to our own budget.
func (s *site) mayAsk(api bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if until := s.paused[api]; now.Before(until) {
		return fmt.Errorf("%w: %s did not answer or wanted fewer requests, and is not asked before %s", errNotAsked, s.Name, until.UTC().Format(time.RFC3339))
	}
	if !s.budget.take(now) {
		return fmt.Errorf("%w: too many requests to %s within a minute: try again later", errNotAsked, s.Name)
	}
	return nil
}

// heard takes note of whether there was an answer. A forge that is down is left
// alone for a while: with many accounts on it, the others would wait for long.
func (s *site) heard(ctx context.Context, api bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.silent[api] = 0
	case errors.Is(ctx.Err(), context.Canceled): // says nothing about the forge
	default:
		if s.silent[api]++; s.silent[api] >= patience {
			s.paused[api] = latest(s.paused[api], s.now().Add(deadFor))
		}
	}
}

// slowDown says whether the forge wants to be left alone, and sees to it. GitHub
// says so with 403 too.
func (s *site) slowDown(response *http.Response, api bool) bool {
	h := response.Header
	now := s.now()
	var until time.Time
	switch {
	case h.Get("Retry-After") != "":
		until = retryAfter(h.Get("Retry-After"), now)
	case h.Get("X-RateLimit-Remaining") == "0":
		until = epoch(h.Get("X-RateLimit-Reset"), now)
	case h.Get("RateLimit-Remaining") == "0": // GitLab
		until = epoch(h.Get("RateLimit-Reset"), now)
	case response.StatusCode == http.StatusTooManyRequests:
		until = now.Add(noHint)
	default:
		return false
	}
	until = earliest(latest(until, now.Add(minPause)), now.Add(maxPause))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused[api] = latest(s.paused[api], until)
	return true
}

// retryAfter reads seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Time {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return now.Add(time.Duration(seconds) * time.Second)
	}
	if date, err := http.ParseTime(value); err == nil {
		return date
	}
	return now.Add(noHint)
}

func epoch(value string, now time.Time) time.Time {
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return now.Add(noHint)
	}
	return time.Unix(seconds, 0)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A budget is how many requests may be made: perMinute at once when none were for
// a minute, and as many as time has earned after that.
type budget struct {
	perMinute float64
	left      float64
	at        time.Time
}

func (b *budget) take(now time.Time) bool {
	if passed := now.Sub(b.at); b.at.IsZero() || passed >= time.Minute {
		b.left = b.perMinute
	} else if passed > 0 {
		b.left = min(b.perMinute, b.left+b.perMinute*passed.Minutes())
	}
	b.at = latest(b.at, now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
