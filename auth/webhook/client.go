package webhook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// maxBody bounds question and answer, in bytes.
const maxBody = 64 << 10

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
		return nil, fmt.Errorf("%w: %s does not answer: %w", ErrUnavailable, w.url.Host, httpclient.Cause(err))
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
	if err := httpclient.CheckType(response, "application/json"); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", httpclient.Cause(err))
	}
	return parseAnswer(body)
}
