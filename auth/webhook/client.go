package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxBody bounds question and answer, in bytes.
const maxBody = 64 << 10

// newClient makes a client to which redirects are answers.
func newClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask puts the question once. Errors wrap ErrUnavailable.
func (w *Webhook) ask(ctx context.Context, q *question) (*answer, error) {
	body, err := q.marshal()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: its address cannot be used", ErrUnavailable)
	}
	timestamp := strconv.FormatInt(q.Timestamp.Unix(), 10)
	h := request.Header
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json")
	h.Set("User-Agent", "stagedoor")
	h.Set(headerID, q.Data.RequestID)
	h.Set(headerTimestamp, timestamp)
	h.Set(headerSignature, sign(w.config.Secrets, q.Data.RequestID, timestamp, body))
	h["Idempotency-Key"] = nil // lets net/http dial again when an idle connection was closed; not sent
	response, err := w.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not answer: %s", ErrUnavailable, w.url.Host, plain(err))
	}
	defer response.Body.Close()
	a, err := readAnswer(response)
	if err != nil {
		return nil, fmt.Errorf("%w: the answer of %s: %w", ErrUnavailable, w.url.Host, err)
	}
	return a, nil
}

func readAnswer(response *http.Response) (*answer, error) {
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status is %d, 200 was expected", response.StatusCode)
	}
	contentType := response.Header.Get("Content-Type")
	if got, _, err := mime.ParseMediaType(contentType); err != nil || got != "application/json" {
		return nil, fmt.Errorf("content type is %.40q, application/json was expected", contentType)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil {
		err = response.Request.Context().Err() // a server that hears of the deadline first can end a cut answer like a whole one
	}
	if err != nil {
		return nil, fmt.Errorf("it broke off: %s", plain(err))
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("it is longer than %d bytes", maxBody)
	}
	return parseAnswer(body)
}

// plain makes text of what a library says of an exchange: the cause without the
// URL, which may hold a secret, and printable, as it may quote what came in.
func plain(err error) string {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, err.Error())
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "")
	}
	return text
}
