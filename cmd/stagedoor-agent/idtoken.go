package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/internal/httpclient"
	"github.com/stagedoor/stagedoor/tunnel"
)

// A provider is a CI system that gives its jobs ID tokens, by which a gateway that
// accepts them knows the job.
type provider struct {
	name     string
	variable string // by whose value "true" a job knows where it runs
	// token returns a token for an audience. An error that is a noPermission says
	// what to change.
	token func(ctx context.Context, audience string) (string, error)
}

var providers = []provider{
	{"GitHub Actions", "GITHUB_ACTIONS", gitHubToken},
	{"GitLab CI", "GITLAB_CI", gitLabToken},
	{"Buildkite", "BUILDKITE", buildkiteToken},
	{"CircleCI", "CIRCLECI", circleCIToken},
}

// A noPermission says why a job gets no ID token, and what its owner can do.
type noPermission string

func (e noPermission) Error() string { return string(e) }

// currentProvider is the one whose job this is, nil if there is none.
func currentProvider() *provider {
	for i := range providers {
		if os.Getenv(providers[i].variable) == "true" {
			return &providers[i]
		}
	}
	return nil
}

// audienceOf is what a token for a gateway names unless it is told otherwise: the
// gateway's URL, without a port.
func audienceOf(gateway string) (string, error) {
	g, err := tunnel.ParseGateway(gateway)
	if err != nil {
		return "", cli.UsageError("%w", err)
	}
	return "https://" + g.Host, nil
}

const (
	maxIDToken     = 64 << 10 // of an answer that holds one
	idTokenTimeout = 15 * time.Second
	idTokenTries   = 3
)

// gitHubToken asks the endpoint that Actions names to jobs with the permission:
// https://docs.github.com/en/actions/reference/security/oidc
func gitHubToken(ctx context.Context, audience string) (string, error) {
	at, secret := os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if at == "" || secret == "" {
		return "", noPermission("this job may not ask GitHub for an ID token. Give it the permission in the workflow:\n\n" +
			"    permissions:\n      id-token: write\n      contents: read\n\n" +
			"A pull request from a fork never has it.")
	}
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "https" {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL")
	}
	query := u.Query()
	query.Set("audience", audience)
	u.RawQuery = query.Encode()
	for try := 1; ; try++ {
		token, err := fetchIDToken(ctx, u.String(), secret)
		if err == nil || try == idTokenTries || ctx.Err() != nil {
			return token, err
		}
		select {
		case <-time.After(time.Duration(try) * time.Second):
		case <-ctx.Done():
		}
	}
}

// fetchIDToken makes one request. Its errors hold neither URL nor secret.
func fetchIDToken(ctx context.Context, at, secret string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, idTokenTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_URL cannot be used")
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	resp, err := httpclient.New(httpclient.Options{MaxBody: maxIDToken}).Do(r)
	if err != nil {
		return "", fmt.Errorf("ask GitHub for an ID token: %w", httpclient.Cause(err))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("ask GitHub for an ID token: %w", err)
	}
	var answer struct{ Value string }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(data, &answer) != nil || answer.Value == "" {
		return "", fmt.Errorf("ask GitHub for an ID token: the answer has status %d and holds none", resp.StatusCode)
	}
	return answer.Value, nil
}

// gitLabToken says what makes GitLab put a token into STAGEDOOR_TOKEN.
func gitLabToken(_ context.Context, audience string) (string, error) {
	return "", noPermission("this job has no ID token. Ask GitLab for one in .gitlab-ci.yml:\n\n" +
		"    id_tokens:\n      STAGEDOOR_TOKEN:\n        aud: " + audience)
}

// buildkiteToken has Buildkite's own agent ask.
func buildkiteToken(ctx context.Context, audience string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "buildkite-agent", "oidc", "request-token", "--audience", audience)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if token := strings.TrimSpace(string(out)); err == nil && token != "" && len(token) < maxIDToken {
		return token, nil
	}
	why := "it printed none"
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		why = fmt.Sprintf("it ended with %s", exit.ProcessState)
	} else if err != nil {
		why = err.Error()
	}
	return "", noPermission("this job got no ID token from buildkite-agent oidc request-token (" + why + "). " +
		"The program and BUILDKITE_AGENT_ACCESS_TOKEN have to be within reach, also in a container, and the token must be allowed by the cluster's queue.")
}

// circleCIToken takes the token that CircleCI puts into every job with a context.
// Its audience is the organization's ID.
func circleCIToken(context.Context, string) (string, error) {
	if token := os.Getenv("CIRCLE_OIDC_TOKEN_V2"); token != "" {
		return token, nil
	}
	return "", noPermission("this job has no ID token (CIRCLE_OIDC_TOKEN_V2). CircleCI gives one to jobs with a context; any will do:\n\n" +
		"    workflows:\n      main:\n        jobs:\n          - build:\n              context: stagedoor")
}
