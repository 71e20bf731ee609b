package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/agent/publish"
	"github.com/stagedoor/stagedoor/internal/httpclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// held is a report as it is while somebody is attached to a held job.
func held() publish.Report {
	return publish.Report{
		Status: hold.Status{
			Task: "task-1", State: hold.Attached, Held: true, Since: now, Deadline: now.Add(9 * time.Minute), Hard: now.Add(time.Hour),
			Guests: []hold.Guest{{Identity: "alice", Since: now}, {Identity: "alice", Since: now}, {Identity: "<!channel> \x1b[31mo'bob", Since: now}},
			Reason: &hold.Reason{Command: hold.Command{Args: []string{"make", "test"}}, Status: 2},
		},
		SSHCommand:  "ssh -p 2222 task-1@terminal.example.com",
		Fingerprint: "SHA256:abc",
	}
}

func TestWords(t *testing.T) {
	r := held()
	if got := r.News(); got != "alice, <!channel> o'bob: attached." {
		t.Errorf("%q", got)
	}
	if got := r.Ends(now); got != "12:09:00 UTC (in 9 minutes)" {
		t.Errorf("%q", got)
	}
	for d, want := range map[time.Duration]string{
		-1: "now", time.Second / 2: "in 1 s", 119 * time.Second: "in 119 s", 2 * time.Minute: "in 2 minutes", 3 * time.Hour: "in 3 h 0 min",
	} {
		if got := publish.In(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	r.Guests, r.Held = nil, false
	r.State, r.Why = hold.Ended, "resumed by alice"
	if got := r.News(); got != "It is over: resumed by alice." || r.Ends(now) != "" {
		t.Errorf("%q, %q", got, r.Ends(now))
	}
}

// sink is one that a test holds up.
type sink struct {
	begun chan publish.Report
	done  chan error
}

func (s *sink) Name() string { return "test" }
func (s *sink) Publish(ctx context.Context, r publish.Report) error {
	s.begun <- r
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestSlowSink misses what was overtaken, and not what came last.
func TestSlowSink(t *testing.T) {
	s := &sink{make(chan publish.Report), make(chan error)}
	p := publish.New(nil, s)
	report := func(task string) publish.Report { return publish.Report{Status: hold.Status{Task: task}} }
	p.Publish(report("first"))
	if got := <-s.begun; got.Task != "first" {
		t.Fatal(got.Task)
	}
	p.Publish(report("second"))
	p.Publish(report("last"))
	s.done <- nil
	closed := make(chan struct{})
	go func() {
		p.Close(t.Context())
		close(closed)
	}()
	if got := <-s.begun; got.Task != "last" {
		t.Errorf("%q", got.Task)
	}
	s.done <- nil
	<-closed
}

// TestCloseHasAnEnd even where a sink has none.
func TestCloseHasAnEnd(t *testing.T) {
	var log bytes.Buffer
	s := &sink{begun: make(chan publish.Report), done: make(chan error)}
	p := publish.New(slog.New(slog.NewTextHandler(&log, nil)), s)
	p.Publish(held())
	<-s.begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Close(ctx)
	if !strings.Contains(log.String(), "context canceled") {
		t.Errorf("%q", log.String())
	}
}

// TestNewerGoesFirst: what failed is not tried again when there is something newer.
func TestNewerGoesFirst(t *testing.T) {
	s := &sink{make(chan publish.Report), make(chan error)}
	p := publish.New(nil, s)
	p.Publish(publish.Report{})
	<-s.begun
	p.Publish(held())
	s.done <- errors.New("not now")
	if got := <-s.begun; got.Task != "task-1" {
		t.Errorf("%q", got.Task)
	}
	s.done <- nil
	p.Close(t.Context())
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stagedoor.json")
	f := &publish.File{Path: path}
	for _, task := range []string{"old", "task-1"} {
		r := held()
		r.Task = task
		if err := f.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil || got["task"] != "task-1" || got["state"] != "attached" || got["ssh_command"] != held().SSHCommand ||
		got["deadline"] != "2026-11-22T12:09:00Z" || got["held"] != true {
		t.Errorf("%v: %s", err, data)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := (&publish.File{Path: "/no/such/directory/file"}).Publish(t.Context(), held()); err == nil {
		t.Error("no error")
	}
}

// TestEnvFile: a shell reads back what was written.
func TestEnvFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	if err := (&publish.EnvFile{Path: path}).Publish(t.Context(), held()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1"; printf '%s|%s|%s' "$STAGEDOOR_SSH_COMMAND" "$STAGEDOOR_GUESTS" "$STAGEDOOR_DEADLINE"`, "sh", path).Output()
	if want := held().SSHCommand + "|alice,<!channel> o'bob|2026-11-22T12:09:00Z"; err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

func TestCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	c := &publish.Command{Args: []string{"sh", "-c", `cat >"$0.json"; printf '%s %s' "$STAGEDOOR_STATE" "$MORE" >"$0"`, path}, Env: []string{"MORE=more", "PATH=" + os.Getenv("PATH")}}
	if err := c.Publish(t.Context(), held()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "attached more" {
		t.Errorf("%v: %q", err, got)
	}
	if got, err := os.ReadFile(path + ".json"); err != nil || !json.Valid(got) {
		t.Errorf("%v: %q", err, got)
	}
	err := (&publish.Command{Args: []string{"sh", "-c", "echo because >&2; exit 3"}}).Publish(t.Context(), held())
	if err == nil || !strings.Contains(err.Error(), "exit status 3: because") {
		t.Errorf("%v", err)
	}
}

// receiver is an https server that keeps what it gets.
func receiver(t *testing.T, answer func(path, body string) (int, string)) (client *http.Client, url string, bodies *[]string) {
	t.Helper()
	bodies = new([]string)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*bodies = append(*bodies, r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
		status, text := answer(r.URL.Path, string(body))
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return httpclient.New(httpclient.Options{RootCAs: roots}), server.URL, bodies
}

func TestWebhook(t *testing.T) {
	client, url, bodies := receiver(t, func(string, string) (int, string) { return http.StatusOK, "ok" })
	plain := &publish.Webhook{URL: url + "/hook", Client: client}
	message := &publish.Webhook{URL: url + "/slack", Client: client, Template: publish.SlackTemplate, NewsOnly: true}
	own := &publish.Webhook{URL: url + "/own", Client: client, Template: `{"a": ["${STAGEDOOR_TASK}", "${STAGEDOOR_GUESTS}"]}`}
	for range 2 {
		for _, w := range []*publish.Webhook{plain, message, own} {
			if err := w.Publish(t.Context(), held()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(*bodies) != 5 {
		t.Fatalf("%d requests, want one of the message and two of each other: %q", len(*bodies), *bodies)
	}
	var report publish.Report
	_, body, _ := strings.Cut((*bodies)[0], "  ")
	if err := json.Unmarshal([]byte(body), &report); err != nil || report.SSHCommand != held().SSHCommand || report.Reason.Status != 2 {
		t.Errorf("%v: %s", err, body)
	}
	var text struct{ Text string }
	_, body, _ = strings.Cut((*bodies)[1], "  ")
	if err := json.Unmarshal([]byte(body), &text); err != nil || !strings.Contains(text.Text, "make test failed with status 2\n```ssh -p 2222 task-1@terminal.example.com```\n") ||
		strings.ContainsAny(text.Text, "<>\x1b") || !strings.Contains(text.Text, "&lt;!channel&gt;") {
		t.Errorf("%v: %q", err, text.Text)
	}
	_, body, _ = strings.Cut((*bodies)[2], "  ")
	var list struct{ A []string }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.A) != 2 || list.A[0] != "task-1" {
		t.Errorf("%v: %s", err, body)
	}
}

// TestWebhookErrors hold no URL: whoever has that may post.
func TestWebhookErrors(t *testing.T) {
	client, url, _ := receiver(t, func(string, string) (int, string) { return http.StatusForbidden, "c2VjcmV0" })
	for name, at := range map[string]string{
		"refused": url + "/c2VjcmV0", "nobody": "https://127.0.0.1:1/c2VjcmV0", "plain": "http://hooks.example.com/c2VjcmV0", "no URL": "https://%zz/c2VjcmV0",
	} {
		err := (&publish.Webhook{URL: at, Client: client}).Publish(t.Context(), held())
		if err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckTemplate(t *testing.T) {
	for template, ok := range map[string]bool{
		publish.SlackTemplate: true, `{"a": "${STAGEDOOR_STATE}"}`: true, `{"a": "${STAGEDOR_STATE}"}`: false, `{"a": ${TEXT}}`: false, `text`: false,
	} {
		if err := publish.CheckTemplate(template); (err == nil) != ok {
			t.Errorf("%s: %v", template, err)
		}
	}
}

// TestSlack: the first report is a message, and the later ones edit it.
func TestSlack(t *testing.T) {
	client, url, bodies := receiver(t, func(path, body string) (int, string) {
		if strings.Contains(body, "closed") {
			return http.StatusOK, `{"ok": false, "error": "channel_not_found"}`
		}
		return http.StatusOK, `{"ok": true, "channel": "C024BE91L", "ts": "1405895017.000506"}`
	})
	s := &publish.Slack{Token: "xoxb-1", Channel: "#ci", API: url, Client: client}
	later := held()
	later.State, later.Why, later.Held = hold.Ended, "resumed by alice", false
	for _, r := range []publish.Report{held(), held(), later} {
		if err := s.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if len(*bodies) != 2 || !strings.HasPrefix((*bodies)[0], `/chat.postMessage Bearer xoxb-1 {"channel":"#ci","text":`) ||
		!strings.HasPrefix((*bodies)[1], `/chat.update Bearer xoxb-1 {"channel":"C024BE91L","ts":"1405895017.000506","text":`) ||
		!strings.Contains((*bodies)[1], "resumed by alice") {
		t.Errorf("%q", *bodies)
	}
	err := (&publish.Slack{Token: "xoxb-1", Channel: "#closed", API: url, Client: client}).Publish(t.Context(), held())
	if err == nil || !strings.Contains(err.Error(), "channel_not_found") || strings.Contains(err.Error(), "xoxb-1") {
		t.Errorf("%v", err)
	}
}
