package publish

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/internal/printable"
)

// Slack shows the task in a channel, as one message that is edited in place. Its app needs the scope chat:write.
type Slack struct {
	Token   string // a bot token, xoxb-…
	Channel string // its ID, or its name with #
	// API is where Slack's methods are; empty: those of slack.com.
	API string
	// Client is to come from httpclient.New. It is required.
	Client *http.Client

	posted message // the one that is edited; none before the first
	text   string  // that it has
}

// message is what Slack knows a message by. Editing takes the channel's ID, which the answer to posting holds.
type message struct {
	Channel string `json:"channel"`
	TS      string `json:"ts"`
}

// Name is part of Sink.
func (s *Slack) Name() string { return "Slack" }

// Publish is part of Sink.
func (s *Slack) Publish(ctx context.Context, r Report) error {
	text := slackText(r)
	if text == s.text {
		return nil
	}
	method, m := "chat.update", s.posted
	if m.TS == "" {
		method, m = "chat.postMessage", message{Channel: s.Channel}
	}
	answer, err := s.call(ctx, method, struct {
		Channel string `json:"channel"`
		TS      string `json:"ts,omitempty"`
		Text    string `json:"text"`
	}{m.Channel, m.TS, text})
	if err != nil {
		return err
	}
	s.posted, s.text = answer, text
	return nil
}

// call is one of Slack's methods: https://docs.slack.dev/apis/web-api/. A refusal has status 200, and says so in the answer.
func (s *Slack) call(ctx context.Context, method string, arguments any) (message, error) {
	body, err := json.Marshal(arguments)
	if err != nil {
		return message{}, err
	}
	api := s.API
	if api == "" {
		api = "https://slack.com/api"
	}
	raw, err := post(ctx, s.Client, api+"/"+method, s.Token, body)
	if err != nil {
		return message{}, err
	}
	var answer struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
		message
	}
	switch err := json.Unmarshal(raw, &answer); {
	case err != nil:
		return message{}, errors.New("the answer is no JSON")
	case !answer.OK:
		return message{}, errors.New("Slack refuses it: " + printable.Text(answer.Error, 64))
	}
	return answer.message, nil
}

// mrkdwn keeps what others wrote from being read as a link or a mention.
// https://docs.slack.dev/messaging/formatting-message-text/#escaping
var mrkdwn = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "`", "'")

// slackText is the message.
func slackText(r Report) string {
	var b strings.Builder
	b.WriteString("*" + mrkdwn.Replace(ci.Clean(r.Task)) + "*")
	if r.Reason != nil {
		b.WriteString(": " + mrkdwn.Replace(ci.Clean(r.Reason.String())))
	}
	b.WriteString("\n")
	if r.SSHCommand != "" && r.State != "ended" {
		b.WriteString("```" + mrkdwn.Replace(r.SSHCommand) + "```\n")
	}
	b.WriteString(mrkdwn.Replace(r.News()))
	if r.Held && !r.Deadline.IsZero() {
		b.WriteString(" It ends at " + r.Deadline.UTC().Truncate(time.Minute).Format("15:04 UTC") + ".")
	}
	if r.Page != "" {
		b.WriteString("\n" + mrkdwn.Replace(ci.Clean(r.Page)))
	}
	return b.String()
}

// key changes when there is news.
func (r Report) key() string {
	return strings.Join([]string{r.Task, r.SSHCommand, r.News()}, "\n")
}
