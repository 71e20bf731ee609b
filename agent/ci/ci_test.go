package ci_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent/ci"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// environment reads a list of variables, as a job has them.
func environment(variables ...string) ci.Lookup {
	return func(name string) string {
		for _, v := range variables {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// jobs are the environments of jobs, as the systems document them.
var jobs = map[string][]string{
	"GitHub Actions": {"CI=true", "GITHUB_ACTIONS=true", "GITHUB_JOB=test", "GITHUB_SERVER_URL=https://github.com", "GITHUB_REPOSITORY=acme/app",
		"GITHUB_RUN_ID=1658821493", "GITHUB_STEP_SUMMARY=/home/runner/summary"},
	"GitLab CI": {"CI=true", "GITLAB_CI=true", "CI_JOB_NAME=test", "CI_JOB_ID=17", "CI_JOB_URL=https://gitlab.com/acme/app/-/jobs/17",
		"CI_JOB_STARTED_AT=2026-11-22T11:50:00Z", "CI_JOB_TIMEOUT=3600", "CI_DEBUG_TRACE=false"},
	"Buildkite": {"CI=true", "BUILDKITE=true", "BUILDKITE_LABEL=test", "BUILDKITE_BUILD_URL=https://buildkite.com/acme/app/builds/7",
		"BUILDKITE_JOB_ID=0198-af", "BUILDKITE_TIMEOUT=90"},
	"CircleCI":  {"CI=true", "CIRCLECI=true", "CIRCLE_JOB=test", "CIRCLE_NODE_INDEX=0", "CIRCLE_BUILD_URL=https://circleci.com/gh/acme/app/99"},
	"Cirrus CI": {"CI=true", "CIRRUS_CI=true", "CIRRUS_TASK_NAME=test", "CIRRUS_TASK_ID=4242"},
	"Jenkins":   {"JENKINS_URL=https://ci.example.com/", "BUILD_NUMBER=12", "BUILD_TAG=jenkins-test-12", "EXECUTOR_NUMBER=1", "JOB_NAME=test", "BUILD_URL=https://ci.example.com/job/test/12/"},
	"":          {"CI=true", "HOME=/root"},
}

func TestDetect(t *testing.T) {
	pages := map[string]string{
		"GitHub Actions": "https://github.com/acme/app/actions/runs/1658821493", "GitLab CI": "https://gitlab.com/acme/app/-/jobs/17",
		"Buildkite": "https://buildkite.com/acme/app/builds/7#0198-af", "CircleCI": "https://circleci.com/gh/acme/app/99",
		"Cirrus CI": "https://cirrus-ci.com/task/4242", "Jenkins": "https://ci.example.com/job/test/12/",
	}
	deadlines := map[string]time.Time{"GitLab CI": now.Add(50 * time.Minute), "Buildkite": now.Add(90 * time.Minute)}
	seen := map[string]bool{}
	for name, job := range jobs {
		s := ci.DetectAt(environment(job...), now)
		if s.Name != name || s.Page != pages[name] || !s.Deadline.Equal(deadlines[name]) || s.Debug {
			t.Errorf("%s: %+v", name, s)
		}
		if name != "" && (s.Job != "test" || s.ID == "" || seen[s.ID]) {
			t.Errorf("%s: the job is %q, its ID %q", name, s.Job, s.ID)
		}
		seen[s.ID] = true
		if hasSwitch := slices.Contains([]string{"GitHub Actions", "GitLab CI", "Buildkite"}, name); hasSwitch != (s.Switch != "") {
			t.Errorf("%s: switch %q", name, s.Switch)
		}
		if s := ci.DetectAt(environment(append(job, "STAGEDOOR_DEBUG=1")...), now); !s.Debug {
			t.Errorf("%s: STAGEDOOR_DEBUG=1 asks for nothing", name)
		}
	}
}

func TestDebug(t *testing.T) {
	for _, c := range []struct {
		system, variable string
		want             bool
	}{
		{"GitHub Actions", "RUNNER_DEBUG=1", true},
		{"Buildkite", "RUNNER_DEBUG=1", false}, // of another system
		{"GitLab CI", "STAGEDOOR_DEBUG=true", true},
		{"GitLab CI", "STAGEDOOR_DEBUG=false", false},
		{"", "STAGEDOOR_DEBUG=0", false},
		{"", "STAGEDOOR_DEBUG=yes", true},
	} {
		if got := ci.Detect(environment(append(jobs[c.system], c.variable)...)).Debug; got != c.want {
			t.Errorf("%q with %s: %v", c.system, c.variable, got)
		}
	}
	if !ci.Detect(environment("GITLAB_CI=true", "CI_DEBUG_TRACE=true")).Debug {
		t.Error("GitLab's own switch asks for nothing")
	}
}

func TestDeadline(t *testing.T) {
	for _, timeout := range []string{"", "false", "0", "-5", "1e3", "99999999999999999999", "9223372036854775807"} {
		if s := ci.DetectAt(environment("BUILDKITE=true", "BUILDKITE_TIMEOUT="+timeout), now); !s.Deadline.IsZero() {
			t.Errorf("BUILDKITE_TIMEOUT=%s: %v", timeout, s.Deadline)
		}
	}
	if s := ci.DetectAt(environment("GITLAB_CI=true", "CI_JOB_TIMEOUT=60"), now); !s.Deadline.Equal(now.Add(time.Minute)) {
		t.Errorf("without a beginning: %v", s.Deadline)
	}
}

// TestSection: whatever the dialect, the command stands alone on its line.
func TestSection(t *testing.T) {
	const command = "ssh -p 2222 task-1@terminal.example.com"
	want := map[string]string{
		"GitHub Actions": "^Open\n" + command + "\n$",
		"GitLab CI":      "^\x1b\\[0Ksection_start:1795348800:(stagedoor_\\d+)\r\x1b\\[0KOpen\n" + command + "\n\x1b\\[0Ksection_end:1795348800:stagedoor_\\d+\r\x1b\\[0K\n$",
		"Buildkite":      "^\\+\\+\\+ Open\n" + command + "\n$",
	}
	folded := map[string]string{
		"GitHub Actions": "^::group::Open\n" + command + "\n::endgroup::\n$",
		"GitLab CI":      "\\[collapsed=true\\]\r\x1b\\[0KOpen\n" + command + "\n\x1b\\[0Ksection_end:",
		"Buildkite":      "^--- Open\n" + command + "\n$",
	}
	for name, job := range jobs {
		s := ci.Detect(environment(job...))
		for kind, c := range map[string]struct{ got, want string }{
			"section": {s.Section("Open", now, command), want[name]},
			"details": {s.Details("Open", now, command), folded[name]},
		} {
			if c.want == "" {
				c.want = "^Open\n" + command + "\n$"
			}
			if !regexp.MustCompile(c.want).MatchString(c.got) {
				t.Errorf("%s, %s: %q", name, kind, c.got)
			}
		}
	}
}

func TestNotice(t *testing.T) {
	github := ci.Detect(environment("GITHUB_ACTIONS=true"))
	if got, want := github.Notice("a: b, c", "100% ssh"), "::notice title=a%3A b%2C c::100%25 ssh\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := ci.Detect(environment()).Notice("a", "b"); got != "" {
		t.Errorf("without a system: %q", got)
	}
}

func TestAnnotation(t *testing.T) {
	got := ci.Detect(environment(jobs["Buildkite"]...)).Annotation()
	if want := "buildkite-agent annotate --style info --context stagedoor-0198-af"; strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
	if s := ci.Detect(environment()); s.Annotation() != nil || s.MetaData("a", "b") != nil {
		t.Error("a machine without a system has programs of one")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"alice":                     "alice",
		"  indented ":               "  indented ",
		"[2001:db8::1]:22":          "[2001:db8::1]:22",
		"::error::fake":             "error::fake",
		"  ::::stop-commands::x":    "stop-commands::x",
		"##[error]fake":             "#[error]fake",
		"x ##teamcity[blockOpened]": "x #teamcity[blockOpened]",
		"a\x1b[31mb\x1b]0;title\x07c\x1bPq\x1b\\": "abc",
		"a\r\nb\tc\x00":                   "abc",
		"\x1b[0Ksection_end:1:x\r\x1b[0K": "section_end:1:x",
		"\x1b]52;c;ZXZpbA==":              "",
		"\x1b":                            "",
	} {
		if got := ci.Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[0Ksection_start:1:x\r\x1b[0K::group::")
	f.Add("###[error]")
	f.Fuzz(func(t *testing.T, s string) {
		got := ci.Clean(s)
		if strings.ContainsAny(got, "\x1b\r\n\x07") || strings.HasPrefix(strings.TrimSpace(got), "::") || strings.Contains(got, "##") {
			t.Errorf("Clean(%q) = %q", s, got)
		}
	})
}
