package ci

import (
	"strconv"
	"strings"
	"time"
)

// gitHub is GitHub Actions. "Enable debug logging" of the dialog that re-runs jobs sets RUNNER_DEBUG to 1. The timeout is not in
// the environment. https://docs.github.com/en/actions/reference/workflows-and-actions/variables
func gitHub(get Lookup, _ time.Time) *System {
	if get("GITHUB_ACTIONS") != "true" {
		return nil
	}
	s := &System{
		Name:        "GitHub Actions",
		Job:         get("GITHUB_JOB"),
		Debug:       get("RUNNER_DEBUG") == "1",
		Switch:      `press "Re-run jobs" and tick "Enable debug logging"`,
		SummaryFile: get("GITHUB_STEP_SUMMARY"),
		ID:          join("github", get("RUNNER_NAME"), get("GITHUB_RUN_ID"), get("GITHUB_RUN_ATTEMPT"), get("GITHUB_JOB")), // a runner has one job at a time
		dialect:     gitHubDialect,
	}
	if server, repository, run := get("GITHUB_SERVER_URL"), get("GITHUB_REPOSITORY"), get("GITHUB_RUN_ID"); server != "" && repository != "" && run != "" {
		s.Page = server + "/" + repository + "/actions/runs/" + run
	}
	return s
}

// gitLab is GitLab CI. A run is given variables in the form for a new pipeline. CI_DEBUG_TRACE is its own switch, but shows every
// secret in the log, so it counts and is not what people are told. CI_JOB_TIMEOUT is in seconds.
// https://docs.gitlab.com/ci/variables/predefined_variables/
func gitLab(get Lookup, now time.Time) *System {
	if get("GITLAB_CI") != "true" {
		return nil
	}
	began, err := time.Parse(time.RFC3339, get("CI_JOB_STARTED_AT"))
	if err != nil {
		began = now
	}
	trace, _ := strconv.ParseBool(get("CI_DEBUG_TRACE"))
	return &System{
		Name:     "GitLab CI",
		Job:      get("CI_JOB_NAME"),
		Page:     get("CI_JOB_URL"),
		ID:       join("gitlab", get("CI_SERVER_HOST"), get("CI_JOB_ID")),
		Debug:    trace,
		Switch:   `press "New pipeline" and give it the variable ` + DebugVariable + " with the value 1",
		Deadline: deadline(began, get("CI_JOB_TIMEOUT"), time.Second),
		dialect:  gitLabDialect,
	}
}

// buildkite is Buildkite. A new build is given variables in its dialog. BUILDKITE_TIMEOUT is in minutes, or the word false.
// https://buildkite.com/docs/pipelines/configure/environment-variables
func buildkite(get Lookup, now time.Time) *System {
	if get("BUILDKITE") != "true" {
		return nil
	}
	s := &System{
		Name:     "Buildkite",
		Job:      get("BUILDKITE_LABEL"),
		Page:     get("BUILDKITE_BUILD_URL"),
		ID:       join("buildkite", get("BUILDKITE_JOB_ID")),
		Switch:   `press "New Build" and set ` + DebugVariable + "=1 under its environment variables",
		Deadline: deadline(now, get("BUILDKITE_TIMEOUT"), time.Minute),
		dialect:  buildkiteDialect,
		annotate: annotate{"buildkite-agent", "stagedoor"},
	}
	if id := get("BUILDKITE_JOB_ID"); id != "" {
		s.context += "-" + id
		if s.Page != "" {
			s.Page += "#" + id
		}
	}
	return s
}

// circleCI is CircleCI. Its log has steps and nothing inside of them.
// https://circleci.com/docs/reference/variables/
func circleCI(get Lookup, _ time.Time) *System {
	if get("CIRCLECI") != "true" {
		return nil
	}
	return &System{Name: "CircleCI", Job: get("CIRCLE_JOB"), Page: get("CIRCLE_BUILD_URL"), ID: join("circleci", get("CIRCLE_BUILD_URL"), get("CIRCLE_NODE_INDEX"))}
}

// cirrus is Cirrus CI.
// https://cirrus-ci.org/guide/writing-tasks/#environment-variables
func cirrus(get Lookup, _ time.Time) *System {
	if get("CIRRUS_CI") != "true" {
		return nil
	}
	s := &System{Name: "Cirrus CI", Job: get("CIRRUS_TASK_NAME"), ID: join("cirrus", get("CIRRUS_TASK_ID"))}
	if id := get("CIRRUS_TASK_ID"); id != "" {
		s.Page = "https://cirrus-ci.com/task/" + id
	}
	return s
}

// jenkins is Jenkins, which has no variable that says so and nothing else.
// https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables
func jenkins(get Lookup, _ time.Time) *System {
	if get("JENKINS_URL") == "" || get("BUILD_NUMBER") == "" {
		return nil
	}
	return &System{Name: "Jenkins", Job: get("JOB_NAME"), Page: get("BUILD_URL"), ID: join("jenkins", get("JENKINS_URL"), get("BUILD_TAG"), get("EXECUTOR_NUMBER"))}
}

// join makes an ID of its parts, of which the last may not be missing.
func join(parts ...string) string {
	if parts[len(parts)-1] == "" {
		return ""
	}
	return strings.Join(parts, "/")
}

// maxTimeout is beyond what any system gives a job, and keeps a product of nanoseconds from running over.
const maxTimeout = 366 * 24 * time.Hour

// deadline reads how long a job may take. What is no number, such as Buildkite's false, means that nobody said.
func deadline(began time.Time, text string, unit time.Duration) time.Time {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n <= 0 || n > int64(maxTimeout/unit) {
		return time.Time{}
	}
	return began.Add(time.Duration(n) * unit)
}
