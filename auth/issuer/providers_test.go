package issuer

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
)

// Payloads as in the providers' documentation, but for times and audience.
const (
	githubToken = `{
		"jti": "4a576b35-ff09-41c5-af2c-ca62dd89b76a", "sub": "repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main",
		"aud": "https://gateway.example.com", "ref": "refs/heads/main", "sha": "7f93a73b8273af5d35fcd70661704c1cadc57054",
		"repository": "octo-org/octo-repo", "repository_owner": "octo-org", "repository_owner_id": "123456", "repository_id": "456789",
		"run_id": "16055123456", "run_number": "10", "run_attempt": "2", "check_run_id": "45312345678", "actor": "OctoCat", "actor_id": "583231",
		"repository_visibility": "private", "workflow": "example-workflow", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch",
		"ref_protected": "true", "ref_type": "branch", "runner_environment": "github-hosted", "environment": "prod",
		"workflow_ref": "octo-org/octo-repo/.github/workflows/x.yml@refs/heads/main", "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
		"enterprise": "octo", "enterprise_id": "11468", "iss": "ISSUER", "nbf": 1772366100, "iat": 1772366400, "exp": 1772388000
	}`
	gitlabToken = `{
		"namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com",
		"user_identities": [{"provider": "github", "extern_uid": "2435223452345"}, {"provider": "bitbucket", "extern_uid": "john.smith"}],
		"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "feature-branch-1", "ref_type": "branch",
		"ref_path": "refs/heads/feature-branch-1", "ref_protected": "false", "groups_direct": ["mygroup/mysubgroup"],
		"environment": "test-environment2", "environment_protected": "false", "deployment_tier": "testing", "environment_action": "start",
		"runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "public",
		"ci_config_ref_uri": null, "ci_config_sha": null, "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
		"iss": "ISSUER", "aud": "https://gateway.example.com", "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
		"iat": 1772366400, "nbf": 1772366395, "exp": 1772370000
	}`
	buildkiteToken = `{
		"iss": "ISSUER", "sub": "organization:acme-inc:pipeline:super-duper-app:ref:refs/heads/main:commit:9f3182061f1e2cca4702c368cbc039b7dc9d4485:step:build",
		"aud": "https://gateway.example.com", "iat": 1772366400, "nbf": 1772366400, "exp": 1772366700, "organization_slug": "acme-inc", "pipeline_slug": "super-duper-app",
		"build_number": 1, "build_branch": "main", "build_tag": "v1.0.0", "build_commit": "9f3182061f1e2cca4702c368cbc039b7dc9d4485", "step_key": null,
		"job_id": "0184990a-477b-4fa8-9968-496074483cee", "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff", "build_source": "ui", "runner_environment": "buildkite-hosted"
	}`
	circleToken = `{
		"iss": "ISSUER", "aud": "https://gateway.example.com", "iat": 1772366400, "exp": 1772370000,
		"sub": "org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e/project/3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c/user/5e6f7a8b-9c0d-4e1f-a2b3-c4d5e6f7a8b9",
		"oidc.circleci.com/context-ids": ["7b6a5c4d-3e2f-4a1b-8c9d-0e1f2a3b4c5d"], "oidc.circleci.com/job-id": "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9",
		"oidc.circleci.com/org-id": "c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e", "oidc.circleci.com/pipeline-id": "9f8e7d6c-5b4a-4c3d-8e2f-1a0b9c8d7e6f",
		"oidc.circleci.com/project-id": "3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c", "oidc.circleci.com/ssh-rerun": false,
		"oidc.circleci.com/vcs-origin": "github.com/octo/widgets", "oidc.circleci.com/vcs-ref": "refs/heads/main",
		"oidc.circleci.com/workflow-id": "2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e"
	}`
)

// change returns a payload with other members.
func change(payload string, members map[string]any) string {
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		panic(err)
	}
	maps.Copy(m, members)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return string(marshal(m))
}

// at has a profile ask a server of the test; all else is as it is.
func (s *ci) at(t testing.TB, p Profile, require map[string][]string) *Verifier {
	t.Helper()
	p.Issuer, p.Require = s.URL, require
	v, _ := s.verifier(t, p)
	return v
}

func TestProviders(t *testing.T) {
	s := newCI(t)
	for what, c := range map[string]struct {
		profile Profile
		require map[string][]string
		token   string
		task    auth.TaskID
		actor   Actor
		id      string
	}{
		"GitHub": {GitHubActions(""), map[string][]string{"repository_owner_id": {"123456"}, "environment": {"*"}}, githubToken,
			"gh-16055123456-45312345678", Actor{"github", "octocat", 583231}, "github:4a576b35-ff09-41c5-af2c-ca62dd89b76a"},
		"GitHub, by name": {GitHubActions("github.com"), map[string][]string{"repository": {"octo-org/octo-repo", "octo-org/x-*"}}, githubToken,
			"gh-16055123456-45312345678", Actor{"github", "octocat", 583231}, "github:4a576b35-ff09-41c5-af2c-ca62dd89b76a"},
		"GitHub with data residency": {GitHubActions("Octo.ghe.com"), map[string][]string{"enterprise_id": {"11468"}}, githubToken,
			"gh-16055123456-45312345678", Actor{"octo.ghe.com", "octocat", 583231}, "github:4a576b35-ff09-41c5-af2c-ca62dd89b76a"},
		"GitHub Enterprise Server": {GitHubActions("git.example.com"), nil, githubToken,
			"ghes-16055123456-45312345678", Actor{"git.example.com", "octocat", 583231}, "ghes:4a576b35-ff09-41c5-af2c-ca62dd89b76a"},
		"GitLab": {GitLabCI(""), map[string][]string{"namespace_path": {"my-group", "my-group/*"}}, gitlabToken,
			"gl-302", Actor{"gitlab", "sample-user", 1}, "gitlab:235b3a54-b797-45c7-ae9a-f72d7bc6ef5b"},
		"GitLab of one's own": {GitLabCI("https://gitlab.example.com:8443"), nil, gitlabToken,
			"gl-302", Actor{"gitlab.example.com", "sample-user", 1}, "gitlab:235b3a54-b797-45c7-ae9a-f72d7bc6ef5b"},
		"Buildkite": {Buildkite(), map[string][]string{"organization_slug": {"acme-inc"}, "build_number": {"1"}}, buildkiteToken,
			"bk-0184990a-477b-4fa8-9968-496074483cee", Actor{}, ""},
		"CircleCI": {CircleCI("c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e"), map[string][]string{"oidc.circleci.com/ssh-rerun": {"false"}}, circleToken,
			"cci-1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9", Actor{}, ""},
		"CircleCI for all": {CircleCI(""), map[string][]string{"oidc.circleci.com/org-id": {"c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e"}}, circleToken,
			"cci-1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9", Actor{}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			v := s.at(t, c.profile, c.require)
			token := signed(strings.Replace(c.token, "ISSUER", s.URL, 1))
			id := wantGood(t, v, token)
			if id.Task != c.task || id.Actor != c.actor || c.id != "" && id.ID != c.id {
				t.Errorf("%+v", id)
			}
			// Another tenant is not let in.
			for _, tenant := range c.profile.Tenant {
				other := s.at(t, c.profile, map[string][]string{tenant: {"mallory"}})
				wantBad(t, other, token, auth.ErrTokenInvalid, "")
			}
		})
	}
}

// The claims that differ between jobs of a matrix, and between attempts.
func TestMatrixJobs(t *testing.T) {
	s := newCI(t)
	v := s.at(t, GitHubActions(""), map[string][]string{"repository_id": {"456789"}})
	token := func(members map[string]any) string {
		return signed(change(strings.Replace(githubToken, "ISSUER", s.URL, 1), members))
	}
	one, two := wantGood(t, v, token(nil)), wantGood(t, v, token(map[string]any{"check_run_id": "45312345679"}))
	if one.Task == two.Task {
		t.Errorf("two jobs of a matrix are both %s", one.Task)
	}
	wantBad(t, v, token(map[string]any{"check_run_id": nil}), auth.ErrTokenInvalid, "check_run_id is missing, and the name of the task is made of it")
	wantBad(t, v, token(map[string]any{"check_run_id": ""}), auth.ErrTokenInvalid, "check_run_id is empty")
}

func TestActor(t *testing.T) {
	s := newCI(t)
	v := s.at(t, GitHubActions(""), map[string][]string{"repository_id": {"456789"}})
	octocat := Actor{"github", "octocat", 583231}
	for what, c := range map[string]struct {
		members map[string]any
		want    Actor
	}{
		"as documented":      {nil, octocat},
		"a push":             {map[string]any{"event_name": "push"}, octocat},
		"a pull request":     {map[string]any{"event_name": "pull_request"}, octocat},
		"ID is a number":     {map[string]any{"actor_id": 583231}, octocat},
		"managed user":       {map[string]any{"actor": "octocat_acme"}, Actor{"github", "octocat_acme", 583231}},
		"a stranger's pull":  {map[string]any{"event_name": "pull_request_target"}, Actor{}},
		"after another run":  {map[string]any{"event_name": "workflow_run"}, Actor{}},
		"a comment":          {map[string]any{"event_name": "issue_comment"}, Actor{}},
		"a new event":        {map[string]any{"event_name": "horoscope"}, Actor{}},
		"no event":           {map[string]any{"event_name": nil}, Actor{}},
		"a program":          {map[string]any{"actor": "dependabot[bot]"}, Actor{}},
		"no ID":              {map[string]any{"actor_id": nil}, Actor{}},
		"empty ID":           {map[string]any{"actor_id": ""}, Actor{}},
		"ID zero":            {map[string]any{"actor_id": "0"}, Actor{}},
		"negative ID":        {map[string]any{"actor_id": "-1"}, Actor{}},
		"ID with a zero":     {map[string]any{"actor_id": "0583231"}, Actor{}},
		"ID with a sign":     {map[string]any{"actor_id": "+583231"}, Actor{}},
		"ID too large":       {map[string]any{"actor_id": "9223372036854775808"}, Actor{}},
		"ID is a name":       {map[string]any{"actor_id": "octocat"}, Actor{}},
		"ID is a list":       {map[string]any{"actor_id": []string{"583231"}}, Actor{}},
		"no login":           {map[string]any{"actor": nil}, Actor{}},
		"login with a slash": {map[string]any{"actor": "../octocat"}, Actor{}},
		"login with escapes": {map[string]any{"actor": "octo\x1b[2J"}, Actor{}},
		"login with an end":  {map[string]any{"actor": "octocat\n"}, Actor{}},
		"login, Kelvin sign": {map[string]any{"actor": "octo\u212aat"}, Actor{}},
		"login is dots":      {map[string]any{"actor": ".."}, Actor{}},
	} {
		t.Run(what, func(t *testing.T) {
			id := wantGood(t, v, signed(change(strings.Replace(githubToken, "ISSUER", s.URL, 1), c.members)))
			if id.Actor != c.want {
				t.Errorf("%+v, want %+v", id.Actor, c.want)
			}
		})
	}
}

func TestProfileIssuers(t *testing.T) {
	for want, p := range map[string]Profile{
		"https://token.actions.githubusercontent.com":                        GitHubActions(""),
		"https://token.actions.acme.ghe.com":                                 GitHubActions("acme.ghe.com"),
		"https://git.example.com/_services/token":                            GitHubActions("git.example.com"),
		"https://gitlab.com":                                                 GitLabCI(""),
		"https://gitlab.example.com":                                         GitLabCI("https://gitlab.example.com"),
		"https://agent.buildkite.com":                                        Buildkite(),
		"https://oidc.circleci.com/org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e": CircleCI("c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e"),
		"https://oidc.circleci.com":                                          CircleCI(""),
		"https://ci.example.com/x":                                           Generic("https://ci.example.com/x"),
	} {
		if p.Issuer != want {
			t.Errorf("%s, want %s", p.Issuer, want)
		}
	}
}

// All profiles at once must not clash.
func TestAllProfiles(t *testing.T) {
	s := newCI(t)
	var all []*Verifier
	for _, name := range []string{"github", "gitlab", "buildkite", "circleci", "generic"} {
		p, err := Named(name, map[string]string{"generic": "https://ci.example.com"}[name])
		if err != nil {
			t.Fatal(err)
		}
		if p.Task == "" {
			p.Task = "ci-{job}"
		}
		if len(p.Tenant) > 0 {
			p.Require = map[string][]string{p.Tenant[0]: {"1"}}
		}
		v, _ := s.verifier(t, p)
		all = append(all, v)
	}
	ghes, _ := s.verifier(t, GitHubActions("git.example.com"))
	if _, err := NewSet(append(all, ghes)...); err != nil {
		t.Error(err)
	}
	if _, err := Named("jenkins", ""); err == nil || !strings.Contains(err.Error(), "buildkite, circleci, generic, github, gitlab") {
		t.Errorf("%v", err)
	}
}

func TestProfileRefused(t *testing.T) {
	good := Profile{Name: "ci", Issuer: "https://ci.example.com", Task: "ci-{job}"}
	edit := func(f func(*Profile)) Profile {
		p := good
		f(&p)
		return p
	}
	require := func(p Profile, claim string, patterns ...string) Profile {
		p.Require = map[string][]string{claim: patterns}
		return p
	}
	for what, c := range map[string]struct {
		profile Profile
		want    string
	}{
		"no name":              {edit(func(p *Profile) { p.Name = "" }), "name"},
		"a name with a colon":  {edit(func(p *Profile) { p.Name = "a:b" }), "name"},
		"a long name":          {edit(func(p *Profile) { p.Name = strings.Repeat("a", 32) }), "name"},
		"no issuer":            {edit(func(p *Profile) { p.Issuer = "" }), "issuer is missing"},
		"issuer without TLS":   {edit(func(p *Profile) { p.Issuer = "http://ci.example.com" }), "not an https URL"},
		"issuer is a host":     {edit(func(p *Profile) { p.Issuer = "ci.example.com" }), "not an https URL"},
		"issuer with password": {edit(func(p *Profile) { p.Issuer = "https://u:s3cret@ci.example.com" }), "names no issuer"},
		"issuer with query":    {edit(func(p *Profile) { p.Issuer = "https://ci.example.com?x=s3cret" }), "names no issuer"},
		"issuer with fragment": {edit(func(p *Profile) { p.Issuer = "https://ci.example.com#" }), "names no issuer"},
		"no task":              {edit(func(p *Profile) { p.Task = "" }), "no claim in it"},
		"HS256":                {edit(func(p *Profile) { p.Algorithms = []string{"RS256", "HS256"} }), "HS256"},
		"none":                 {edit(func(p *Profile) { p.Algorithms = []string{"none"} }), "none"},
		"actor in part":        {edit(func(p *Profile) { p.Actor = ActorClaims{Forge: "github", ID: "actor_id"} }), "actor"},
		"nothing required":     {require(good, "a"), "patterns"},
		"empty required":       {require(good, "a", "x", ""), "patterns"},
		"empty claim required": {require(good, "", "x"), "patterns"},
		"too much required":    {require(good, "a", slices.Repeat([]string{"x"}, 65)...), "65 patterns"},
		"all of GitHub":        {GitHubActions(""), "signs for everybody"},
		"any owner":            {require(GitHubActions(""), "repository_owner", "*"), "signs for everybody"},
		"owners beginning so":  {require(GitHubActions(""), "repository_owner", "acme*"), "signs for everybody"},
		"one of two":           {require(GitHubActions(""), "repository_owner", "acme", "acme-*"), "signs for everybody"},
		"anybody's repository": {require(GitHubActions(""), "repository", "*/tools"), "signs for everybody"},
		"from the root":        {require(GitHubActions(""), "repository", "/*"), "signs for everybody"},
		"any branch":           {require(GitHubActions(""), "ref", "refs/heads/main"), "signs for everybody"},
		"all of ghe.com":       {GitHubActions("acme.ghe.com"), "signs for everybody"},
		"all of GitLab":        {GitLabCI(""), "signs for everybody"},
		"all of Buildkite":     {Buildkite(), "signs for everybody"},
		"all of CircleCI":      {CircleCI(""), "signs for everybody"},
		"all, by hand":         {edit(func(p *Profile) { p.Issuer = "https://gitlab.com" }), "signs for everybody"},
	} {
		v, err := New(c.profile, gateway, nil)
		if err == nil || v != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	if _, err := New(good, "", nil); err == nil || !strings.Contains(err.Error(), "no audience") {
		t.Errorf("%v", err)
	}
	for _, p := range []Profile{good, require(GitHubActions(""), "repository", "acme/*"), require(GitLabCI(""), "project_path", "acme/team/*", "acme/x")} {
		v, err := New(p, gateway, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		v.Close()
	}
}
