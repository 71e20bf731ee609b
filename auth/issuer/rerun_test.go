package issuer

import "testing"

// TestTriggeringActor: who pressed re-run counts where the operator lets jobs
// declare it, and in no other case.
func TestTriggeringActor(t *testing.T) {
	s := newCI(t)
	bob := Actor{Forge: "github", Login: "bob"}
	alice := Actor{Forge: "github", Login: "alice", ID: 583231}
	for name, test := range map[string]struct {
		denied   bool // by the operator
		change   map[string]any
		declared string
		actor    Actor
		want     Actor
	}{
		"allowed":               {declared: "Bob", actor: alice, want: bob},
		"not allowed":           {denied: true, declared: "bob", actor: alice},
		"a later attempt":       {change: map[string]any{"run_attempt": 17}, declared: "bob", actor: alice, want: bob},
		"the first attempt":     {change: map[string]any{"run_attempt": "1"}, declared: "bob", actor: alice},
		"no attempt":            {change: map[string]any{"run_attempt": nil}, declared: "bob", actor: alice},
		"an empty attempt":      {change: map[string]any{"run_attempt": ""}, declared: "bob", actor: alice},
		"an attempt of text":    {change: map[string]any{"run_attempt": "two"}, declared: "bob", actor: alice},
		"by the actor":          {declared: "ALICE", actor: alice},
		"nothing declared":      {actor: alice},
		"a program":             {declared: "dependabot[bot]", actor: alice},
		"a path":                {declared: "../bob", actor: alice},
		"another forge":         {declared: "gitlab:bob", actor: alice},
		"a number":              {declared: "bob#1", actor: alice},
		"of a program's run":    {change: map[string]any{"actor": "dependabot[bot]"}, declared: "bob", want: bob},
		"of an outsider's run":  {change: map[string]any{"event_name": "pull_request_target"}, declared: "bob"},
		"of a comment's run":    {change: map[string]any{"event_name": "issue_comment"}, declared: "bob"},
		"of an unknown event's": {change: map[string]any{"event_name": nil}, declared: "bob"},
	} {
		t.Run(name, func(t *testing.T) {
			p := GitHubActions("")
			p.Issuer, p.Require, p.TriggeringActor = s.URL, map[string][]string{"repository_owner_id": {"9"}}, !test.denied
			p.Tenant = nil
			v, _ := s.verifier(t, p)
			claims := map[string]any{"repository_owner_id": "9", "run_id": "1", "check_run_id": "2", "run_attempt": "2", "event_name": "push", "actor": "Alice", "actor_id": "583231"}
			for name, value := range test.change {
				claims[name] = value
			}
			id := wantGood(t, v, s.token(claims))
			if got := id.TriggeringActor(test.declared); got != test.want || id.Actor != test.actor {
				t.Errorf("%+v beside %+v, want %+v beside %+v", got, id.Actor, test.want, test.actor)
			}
		})
	}
}

// Other providers have nobody press re-run in this way.
func TestTriggeringActorIsGitHubs(t *testing.T) {
	p := GitLabCI("")
	p.Require, p.TriggeringActor = map[string][]string{"namespace_id": {"1"}}, true
	if _, err := New(p, gateway, nil); err == nil {
		t.Error("a profile without such a declaration is accepted")
	}
}
