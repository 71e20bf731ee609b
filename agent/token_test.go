package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/tunnel"
)

// An ID token that expired unused is replaced by another; one that is refused for anything else is not, and none is asked for in
// a loop.
func TestMayComeAgain(t *testing.T) {
	for name, test := range map[string]struct {
		code    string
		renewal string
		age     time.Duration
		fails   bool
		again   bool
		token   string
	}{
		"expired":                      {code: tunnel.CodeExpired, age: time.Hour, again: true, token: "new"},
		"expired at once":              {code: tunnel.CodeExpired, token: "old"},
		"expired, none to be had":      {code: tunnel.CodeExpired, age: time.Hour, fails: true, token: "old"},
		"the task's time is over":      {code: tunnel.CodeExpired, renewal: "r", age: time.Hour, token: "old"},
		"not accepted":                 {code: tunnel.CodeBadToken, age: time.Hour, token: "old"},
		"the renewal is not accepted":  {code: tunnel.CodeBadToken, renewal: "r", age: time.Hour, again: true, token: "new"},
		"nor is it, of a recent token": {code: tunnel.CodeBadToken, renewal: "r", again: true, token: "old"},
		"another agent has used it":    {code: tunnel.CodeReplayed, age: time.Hour, token: "old"},
		"a newer agent has come":       {code: tunnel.CodeReplaced, renewal: "r", age: time.Hour, token: "old"},
	} {
		a := &Agent{Token: "old", renewal: test.renewal, newToken: time.Now().Add(-test.age), NewToken: func(context.Context) (string, error) {
			if test.fails {
				return "", errors.New("no")
			}
			return "new", nil
		}}
		if again := a.mayComeAgain(t.Context(), &tunnel.Refusal{Code: test.code}); again != test.again || a.Token != test.token {
			t.Errorf("%s: again is %v with the %s token", name, again, a.Token)
		}
	}
}

func TestRegisteredAs(t *testing.T) {
	a := &Agent{}
	a.server.taskLater = true
	for _, bad := range []string{"", "../x", "a b"} {
		if a.registeredAs(bad) == nil {
			t.Errorf("%q is taken for a task", bad)
		}
	}
	if err := a.registeredAs("gl-1"); err != nil || a.server.Task != "gl-1" {
		t.Errorf("%v: %q", err, a.server.Task)
	}
	if a.registeredAs("gl-1") != nil || a.registeredAs("gl-2") == nil || a.server.Task != "gl-1" {
		t.Error("the task can change while guests are served")
	}
}

// A guest gets none of what lets a job ask its provider for ID tokens: by those it could be a host, or more elsewhere.
func TestSessionsCannotAskForTokens(t *testing.T) {
	kept := taskEnviron([]string{
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=x", "ACTIONS_ID_TOKEN_REQUEST_URL=x", "CIRCLE_OIDC_TOKEN=x", "CIRCLE_OIDC_TOKEN_V2=x",
		"BUILDKITE_AGENT_ACCESS_TOKEN=x", "STAGEDOOR_TOKEN=x", "GITHUB_ACTIONS=true",
	})
	if len(kept) != 1 || kept.get("GITHUB_ACTIONS") != "true" {
		t.Errorf("%q", kept)
	}
}
