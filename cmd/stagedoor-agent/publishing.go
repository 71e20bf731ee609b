package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/publish"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// publishing are the settings of what other programs are told.
type publishing struct {
	json, env, onChange        string
	webhook, webhookTemplate   string
	slackChannel               string
	slackToken, slackTokenFile string
}

func (c *publishing) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.json, "publish-json", "", "`file` that is kept up to date with how the task fares, as JSON")
	f.StringVar(&c.env, "publish-env", "", "`file` that is kept up to date with the same as variables, for a shell to read")
	f.StringVar(&c.onChange, "on-change", "", "`command` for a shell to run when that changes: with the JSON as its input and the variables")
	f.StringVar(&c.webhook, "webhook", "", "https `URL` that is sent the JSON when it changes")
	f.StringVar(&c.webhookTemplate, "webhook-template", "", "`file` with JSON to send instead, in which ${STAGEDOOR_TASK} and the other variables of --publish-env stand for their values and ${TEXT} for a message; or the word slack for what Slack's incoming webhooks take")
	f.StringVar(&c.slackChannel, "slack-channel", "", "`channel` of Slack for one message that is edited as things change; takes a bot token with the scope chat:write")
	f.StringVar(&c.slackToken, "slack-token", "", "that `token`; prefer the variable or a file")
	f.StringVar(&c.slackTokenFile, "slack-token-file", "", "`file` with that token")
}

// check completes the settings, and says what is wrong with them.
func (c *publishing) check() (err error) {
	if c.slackToken, err = oneOf(c.slackToken, c.slackTokenFile); err != nil {
		return fmt.Errorf("slack-token: %w", err)
	}
	if (c.slackChannel == "") != (c.slackToken == "") {
		return cli.UsageError("--slack-channel and --slack-token go together")
	}
	if c.webhook != "" {
		if _, err := httpclient.ParseURL(c.webhook, false); err != nil {
			return cli.UsageError("--webhook: %w", err)
		}
	}
	switch c.webhookTemplate {
	case "":
		return nil
	case "slack":
		c.webhookTemplate = publish.SlackTemplate
		return nil
	}
	text, err := oneOf("", c.webhookTemplate)
	if err != nil {
		return fmt.Errorf("--webhook-template: %w", err)
	}
	if err := publish.CheckTemplate(text); err != nil {
		return cli.UsageError("--webhook-template: %s: %w", c.webhookTemplate, err)
	}
	c.webhookTemplate = text
	return nil
}

// sinks are what the settings ask for, and what the CI system has for everybody.
func (c *publishing) sinks(system *ci.System, env []string) []publish.Sink {
	client := httpclient.New(httpclient.Options{})
	var sinks []publish.Sink
	if c.json != "" {
		sinks = append(sinks, &publish.File{Path: c.json})
	}
	if c.env != "" {
		sinks = append(sinks, &publish.EnvFile{Path: c.env})
	}
	if c.onChange != "" {
		sinks = append(sinks, &publish.Command{Args: shellCommand(c.onChange), Env: env})
	}
	if c.webhook != "" {
		sinks = append(sinks, &publish.Webhook{
			URL: c.webhook, Template: c.webhookTemplate, NewsOnly: c.webhookTemplate == publish.SlackTemplate, Client: client,
		})
	}
	if c.slackChannel != "" {
		sinks = append(sinks, &publish.Slack{Token: c.slackToken, Channel: c.slackChannel, Client: client})
	}
	if system.Annotation() != nil {
		sinks = append(sinks, &annotation{system: system})
	}
	return sinks
}

func shellCommand(line string) []string {
	if runtime.GOOS == "windows" {
		return []string{"cmd", "/C", line}
	}
	return []string{"sh", "-c", line}
}

// annotation shows the newest report on the page of a build, and keeps the ssh
// command in its meta-data.
type annotation struct {
	system *ci.System
	shown  string
	kept   string
}

// Name is part of publish.Sink.
func (a *annotation) Name() string { return "annotation of " + a.system.Name }

// Publish is part of publish.Sink. A build without the program has no annotation,
// and needs none: the log says the same.
func (a *annotation) Publish(ctx context.Context, r publish.Report) error {
	if r.SSHCommand == "" {
		return nil
	}
	if text := markdown(r); text != a.shown {
		if err := runQuietly(ctx, a.system.Annotation(), text); err != nil {
			return err
		}
		a.shown = text
	}
	if r.SSHCommand != a.kept {
		a.kept = r.SSHCommand
		return runQuietly(ctx, a.system.MetaData("stagedoor-ssh-command", r.SSHCommand), "")
	}
	return nil
}

func runQuietly(ctx context.Context, args []string, input string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrNotFound) {
		return err
	}
	return nil
}

// secretVariables are the settings that nobody else has any business with.
var secretVariables = []string{"STAGEDOOR_TOKEN", "STAGEDOOR_WEBHOOK", "STAGEDOOR_SLACK_TOKEN"}

// withoutSecrets is the environment for what this process starts, less what only
// it has to know.
func withoutSecrets() []string {
	for _, name := range secretVariables {
		os.Unsetenv(name)
	}
	return os.Environ()
}

// closePublisher gives what is still on its way a last chance.
func closePublisher(p *publish.Publisher) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p.Close(ctx)
}
