package issuer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
)

func TestOwnActor(t *testing.T) {
	gitHub := func(iss string) map[string]any {
		return map[string]any{"iss": iss, "actor": "Alice", "actor_id": "583231", "run_id": "1", "event_name": "push"}
	}
	with := func(m map[string]any, name string, value any) map[string]any {
		m[name] = value
		return m
	}
	gitLab := map[string]any{"iss": "https://git.example.com", "user_login": "bob", "user_id": "7", "job_id": "1", "project_id": "2"}
	for name, test := range map[string]struct {
		claims map[string]any
		want   Actor
		bad    bool
	}{
		"github":     {claims: gitHub("https://token.actions.githubusercontent.com"), want: Actor{"github", "alice", 583231}},
		"enterprise": {claims: gitHub("https://token.actions.githubusercontent.com/acme"), want: Actor{"github", "alice", 583231}},
		"residency":  {claims: gitHub("https://token.actions.acme.ghe.com"), want: Actor{"acme.ghe.com", "alice", 583231}},
		"server":     {claims: gitHub("https://git.acme.com/_services/token"), want: Actor{"git.acme.com", "alice", 583231}},
		"outsider":   {claims: with(gitHub("https://token.actions.githubusercontent.com"), "event_name", "pull_request_target")},
		"gitlab":     {claims: gitLab, want: Actor{"git.example.com", "bob", 7}},
		"nobody":     {claims: map[string]any{"iss": "https://agent.buildkite.com", "job_id": "x"}},
		"host token": {claims: with(gitHub("https://ci.example.com"), "task", "task-1"), bad: true},
		"no issuer":  {claims: map[string]any{"actor": "x"}, bad: true},
	} {
		payload, _ := json.Marshal(test.claims)
		got, err := OwnActor("e30." + base64.RawURLEncoding.EncodeToString(payload) + ".eA")
		if got != test.want || errors.Is(err, ErrNotIDToken) != test.bad {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, test.want)
		}
	}
	for _, raw := range []string{"", "a.b", "a.!.c", "a.e30.c"} {
		if _, err := OwnActor(raw); err == nil {
			t.Errorf("%q is taken for an ID token", raw)
		}
	}
}

func FuzzOwnActor(f *testing.F) {
	f.Add([]byte(`{"iss":"https://x","actor":"a","actor_id":"1","run_id":"1","event_name":"push"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		a, err := OwnActor("e30." + base64.RawURLEncoding.EncodeToString(payload) + ".eA")
		if (err != nil || a.ID <= 0) && a != (Actor{}) {
			t.Errorf("%+v, %v", a, err)
		}
	})
}
