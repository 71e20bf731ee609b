package issuer

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// GitHubActions returns the profile of GitHub Actions: of github.com for an
// empty host, of GitHub Enterprise Cloud with data residency for a host such as
// "acme.ghe.com", else of the GitHub Enterprise Server at that host. An
// enterprise with an issuer of its own sets Issuer to it. The forge of its people
// is named "github" for github.com, else like the host.
//
// The task is "gh-RUN-JOB", with the two numbers of the job's page,
// /actions/runs/RUN/job/JOB. JOB is the claim check_run_id, a number of its own
// for every job and every attempt, also in a matrix: the claims run_id and
// run_attempt are the same for all jobs of a run. An Enterprise Server may not
// have this claim, and then its jobs are refused; a Task of other claims lets
// the jobs of one run take each other's place.
//
// The person is actor_id, who set off the run; who pressed re-run is not in the
// token: see Profile.TriggeringActor. Events that outsiders can cause although the job has secrets
// (pull_request_target, workflow_run, issue_comment and the like) name nobody.
//
// https://docs.github.com/en/actions/reference/security/oidc
func GitHubActions(host string) Profile {
	p := Profile{
		Name:   "github",
		Issuer: "https://token.actions.githubusercontent.com",
		Tenant: []string{"repository_owner_id", "repository_owner", "repository_id", "repository", "enterprise_id", "enterprise"},
		Task:   "gh-{run_id}-{check_run_id}",
		Actor: ActorClaims{
			Forge: "github", ID: "actor_id", Login: "actor",
			When: map[string][]string{"event_name": {
				"push", "pull_request", "merge_group", "workflow_dispatch", "repository_dispatch", "schedule", "create", "delete", "release",
			}},
		},
	}
	host = strings.ToLower(host)
	switch {
	case host == "" || host == "github.com":
	case strings.HasSuffix(host, ".ghe.com"):
		p.Issuer, p.Actor.Forge = "https://token.actions."+host, host
	default:
		p.Name, p.Issuer, p.Actor.Forge = "ghes", "https://"+host+"/_services/token", host
		p.Task = "ghes-{run_id}-{check_run_id}"
		p.Tenant = nil
	}
	return p
}

// GitLabCI returns the profile of GitLab CI: of gitlab.com for an empty URL,
// else of the instance at that base URL, which is the issuer as it is written
// there. Its forge is named "gitlab" for gitlab.com, else like the host. The
// task is "gl-JOB", with the number of the job's page, different for
// every job, parallel ones and retries too. The person is who runs the job. In a
// merge request's pipeline the claims project_id and project_path are those of
// the fork.
//
// https://docs.gitlab.com/ci/secrets/id_token_authentication/
func GitLabCI(at string) Profile {
	const public = "https://gitlab.com"
	p := Profile{
		Name:   "gitlab",
		Issuer: public,
		Tenant: []string{"namespace_id", "namespace_path", "project_id", "project_path"},
		Task:   "gl-{job_id}",
		Actor:  ActorClaims{Forge: "gitlab", ID: "user_id", Login: "user_login"},
	}
	if at != "" && at != public {
		p.Issuer = at
		p.Tenant = nil
		p.Actor.Forge = ""
		if u, err := url.Parse(at); err == nil {
			p.Actor.Forge = u.Hostname()
		}
	}
	return p
}

// Buildkite returns the profile of Buildkite. The task is "bk-" and the UUID of
// the job, which parallel jobs and retries have of their own. Its tokens have no
// jti, and name no person.
//
// https://buildkite.com/docs/agent/cli/reference/oidc
func Buildkite() Profile {
	return Profile{
		Name:      "buildkite",
		Issuer:    "https://agent.buildkite.com",
		Tenant:    []string{"organization_id", "organization_slug", "pipeline_id"},
		Task:      "bk-{job_id}",
		NoTokenID: true,
	}
}

// CircleCI returns the profile of CircleCI for an organization, whose ID is a
// UUID: each has an issuer of its own. With an empty ID it is that of the issuer
// for all, whose tokens a job gets by "circleci run oidc get --root-issuer". The
// task is "cci-" and the UUID of the job. The nodes of a job with parallelism
// share it, so one of them can be entered. The tokens have no jti, and name a
// person by an ID of CircleCI's alone, which no forge knows.
//
// https://circleci.com/docs/guides/permissions-authentication/openid-connect-tokens/
// https://circleci.com/docs/guides/permissions-authentication/oidc-tokens-with-custom-claims/
func CircleCI(organization string) Profile {
	p := Profile{
		Name:      "circleci",
		Issuer:    "https://oidc.circleci.com/org/" + organization,
		Task:      "cci-{oidc.circleci.com/job-id}",
		NoTokenID: true,
	}
	if organization == "" {
		p.Issuer = "https://oidc.circleci.com"
		p.Tenant = []string{"oidc.circleci.com/org-id", "oidc.circleci.com/project-id"}
	}
	return p
}

// Generic returns the profile of any other issuer of OpenID Connect ID tokens.
// Task must be set to a template of claims that tell its jobs apart. All that
// the issuer gives tokens to can register, as far as Require does not say
// otherwise.
func Generic(issuer string) Profile { return Profile{Name: "oidc", Issuer: issuer} }

// Named returns a profile by its name in a configuration: "github", "gitlab",
// "buildkite", "circleci" or "generic". at is what the function of that profile
// takes: the host, the base URL, nothing, the organization, the issuer.
func Named(name, at string) (Profile, error) {
	profiles := map[string]func(string) Profile{
		"github": GitHubActions, "gitlab": GitLabCI, "circleci": CircleCI, "generic": Generic,
		"buildkite": func(string) Profile { return Buildkite() },
	}
	p, ok := profiles[name]
	if !ok {
		return Profile{}, fmt.Errorf("provider %.64q is not known: there are %s", name, strings.Join(slices.Sorted(maps.Keys(profiles)), ", "))
	}
	return p(at), nil
}
