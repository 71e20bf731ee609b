package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// A Webhook is sent every report by POST.
type Webhook struct {
	// URL is where to, by https. It may be a secret and is in no error.
	URL string
	// Template, unless empty, is what is sent in the place of the report as JSON: JSON in whose strings ${STAGEDOOR_TASK} and the
	// like stand for the variables of [Report.Variables], and ${TEXT} for the message that a person would read.
	Template string
	// NewsOnly sends nothing when only the deadline has moved: for those who show a message for each.
	NewsOnly bool
	// Client is to come from httpclient.New. It is required.
	Client *http.Client

	last string // the news that was sent
}

// SlackTemplate is what Slack's incoming webhooks take, and Mattermost's.
const SlackTemplate = `{"text": "${TEXT}"}`

// Name is part of Sink.
func (w *Webhook) Name() string { return "webhook" }

// Publish is part of Sink.
func (w *Webhook) Publish(ctx context.Context, r Report) error {
	news := r.key()
	if w.NewsOnly && news == w.last {
		return nil
	}
	body, err := w.body(r)
	if err != nil {
		return err
	}
	if _, err := post(ctx, w.Client, w.URL, "", body); err != nil {
		return err
	}
	w.last = news
	return nil
}

func (w *Webhook) body(r Report) ([]byte, error) {
	if w.Template == "" {
		return json.Marshal(r)
	}
	values := map[string]string{"TEXT": slackText(r)}
	for _, v := range r.Variables() {
		values[v.Name] = v.Value
	}
	return []byte(os.Expand(w.Template, func(name string) string { return inString(values[name]) })), nil
}

// CheckTemplate says what is wrong with a template: it must make JSON, of names that are known.
func CheckTemplate(template string) error {
	known := map[string]bool{"TEXT": true}
	for _, v := range (Report{}).Variables() {
		known[v.Name] = true
	}
	var unknown []string
	made := os.Expand(template, func(name string) string {
		if !known[name] {
			unknown = append(unknown, name)
		}
		return "x"
	})
	if len(unknown) > 0 {
		return fmt.Errorf("there is no variable %.64q", unknown[0])
	}
	if !json.Valid([]byte(made)) {
		return errors.New("it makes no JSON")
	}
	return nil
}

// inString writes a value as it stands between the quotes of a string in JSON.
func inString(s string) string {
	quoted, _ := json.Marshal(s) // of a string: no error
	return string(quoted[1 : len(quoted)-1])
}

// maxAnswer is more than anybody has to say.
const maxAnswer = 64 << 10

// post sends JSON, with a bearer token unless that is empty, and returns the answer. Its errors hold neither URL nor token.
func post(ctx context.Context, client *http.Client, url, token string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL cannot be used")
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, httpclient.Cause(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, httpclient.Cause(err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return nil, fmt.Errorf("the answer has status %d", response.StatusCode)
	}
	return answer, nil
}
