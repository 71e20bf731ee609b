package ci_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/stagedoor/stagedoor/ci"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestParts runs what a person pastes, and what that refers to, until the job is
// held, a guest has been there and has let it go.
func TestParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("jobs", func(t *testing.T) { // which end before the gateway
		for name, test := range map[string]func(*testing.T, *world){
			"GitLab": testGitLab, "GitLab, old runner": testOldGitLab, "GitLab runner": testGitLabRunner, "GitLab, not asked": testGitLabNotAsked,
			"Buildkite": testBuildkite, "Buildkite, not held": testBuildkiteNotHeld,
			"CircleCI": testCircleCI, "CircleCI orb": testCircleCIOrb, "Jenkins": testJenkins, "Cirrus": testCirrus, "shell": testShell, "shell, one line": testShellOneLine, "shell, no gateway": testShellNoGateway,
			"GitHub": testGitHub, "GitHub, a host token": testGitHubToken, "GitHub, not held": testGitHubNotHeld, "GitHub, not opened": testGitHubNotOpened, "GitHub runner": testGitHubRunner,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, w)
			})
		}
	})
}

func snippet(t *testing.T, w *world, id string) string {
	t.Helper()
	s, err := ci.Find(id)
	if err != nil {
		t.Fatal(err)
	}
	return s.For(w.gateway)
}

// part reads a file of the repository.
func part(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// decode reads the documents of a YAML text into those given.
func decode(t *testing.T, text string, into ...any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(text))
	for _, v := range into {
		if err := d.Decode(v); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

// gitLabScript returns what the snippet and the template that it includes come to:
// the lines of a job whose script fails.
func gitLabScript(t *testing.T, w *world) []string {
	t.Helper()
	var pipeline struct {
		Include []struct{ Remote string }
		Test    struct {
			Extends string
			Script  []string
		}
	}
	decode(t, snippet(t, w, "gitlab"), &pipeline)
	var spec struct {
		Spec struct {
			Inputs map[string]struct{ Default string }
		}
	}
	var template map[string]struct {
		IDTokens     map[string]struct{ Aud string } `yaml:"id_tokens"`
		BeforeScript []string                        `yaml:"before_script"`
	}
	text := w.get(t, pipeline.Include[0].Remote)
	decode(t, text, &spec, &template)
	text = regexp.MustCompile(`\$\[\[ inputs\.([a-z]+) \]\]`).ReplaceAllStringFunc(text, func(s string) string {
		return spec.Spec.Inputs[strings.Fields(s)[1][len("inputs."):]].Default
	})
	decode(t, text, &spec, &template)
	base := template[pipeline.Test.Extends]
	if aud := base.IDTokens["STAGEDOOR_TOKEN"].Aud; aud != "https://localhost" {
		t.Errorf("the token is for %s", aud)
	}
	if !slices.Equal(pipeline.Test.Script, []string{"make test"}) {
		t.Fatalf("the script is %q", pipeline.Test.Script)
	}
	return append(base.BeforeScript, failingScript...)
}

// failingScript is a script of a job that has changed directory and environment by
// the time that it fails.
var failingScript = []string{"mkdir there && cd there", "export MARK=set", "false", "echo not reached"}

func (w *world) get(t *testing.T, url string) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: w.tls()}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v: %s", url, resp.Status, err, body)
	}
	return string(body)
}

// startGitLab runs lines as GitLab's runner does: each shown first, all in one
// shell, by eval in a pipeline. evaluate is how it is written there.
func (j *job) startGitLab(shell, evaluate string, lines []string) {
	j.t.Helper()
	var script strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&script, "echo %s\n%s\n", quote("$ "+line), line)
	}
	text := "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\nset +o noclobber\n" +
		fmt.Sprintf(evaluate, quote(script.String())) + "exit 0\n"
	j.cmd.Stdin = strings.NewReader(text)
	args := strings.Fields(shell)
	j.start(args[0], args[1:]...)
}

const (
	gitLabEval    = ": | (eval %s)\n"
	oldGitLabEval = ": | eval %s\n"
)

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// gitLabJob has the variables of a job, with an ID token.
func (w *world) gitLabJob(t *testing.T, id string, env ...string) *job {
	token := w.issuer.Token("https://localhost", map[string]any{
		"iss": w.issuer.URL + "/gitlab", "namespace_id": "7", "project_id": "2", "job_id": id, "user_login": "alice", "user_id": "583231"})
	return w.job(t, append([]string{
		"GITLAB_CI=true", "CI_JOB_ID=" + id, "CI_JOB_NAME=test", "CI_SERVER_HOST=gitlab.example.com", "CI_JOB_TIMEOUT=3600", "CI_DEBUG_TRACE=false",
		"CI_JOB_URL=https://gitlab.example.com/acme/app/-/jobs/" + id, "STAGEDOOR_TOKEN=" + token}, env...)...)
}

// testGitLab: people come into the directory and the environment where the script
// failed, also in an image without bash and curl.
func testGitLab(t *testing.T, w *world) {
	j := w.gitLabJob(t, "1", "STAGEDOOR_DEBUG=1")
	j.startGitLab("bash", gitLabEval, gitLabScript(t, w))
	if seen, status := j.isHeld("gl-1"); seen != sees(j.dir+"/there", "set") || status != 1 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

func testOldGitLab(t *testing.T, w *world) {
	j := w.gitLabJob(t, "2", "STAGEDOOR_DEBUG=yes")
	j.startGitLab("busybox sh", oldGitLabEval, gitLabScript(t, w))
	if seen, status := j.isHeld("gl-2"); seen != sees(j.dir+"/there", "set") || status != 1 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

func testGitLabRunner(t *testing.T, w *world) {
	j := w.gitLabJob(t, "3", "STAGEDOOR_DEBUG=1", "STAGEDOOR_GATEWAY="+w.gateway)
	j.startGitLab("dash", gitLabEval, append([]string{part(t, "ci/runner-hooks/gitlab-pre-build.sh")}, failingScript...))
	if seen, status := j.isHeld("gl-3"); seen != sees(j.dir+"/there", "set") || status != 1 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

// testGitLabNotAsked: an ordinary run dials nothing, and says how to ask. One that
// passes or is cancelled ends as it would have.
func testGitLabNotAsked(t *testing.T, w *world) {
	script := gitLabScript(t, w)
	before, nobody := script[0], "STAGEDOOR_GATEWAY=nobody.invalid"
	for _, c := range []struct {
		env    []string
		lines  []string
		status int
		says   string
	}{
		{nil, script, 1, "STAGEDOOR_DEBUG with the value 1"},
		{[]string{"STAGEDOOR_DEBUG=0"}, script, 1, "STAGEDOOR_DEBUG with the value 1"},
		{[]string{"STAGEDOOR_DEBUG=1"}, []string{before, "true"}, 0, ""},
		{[]string{"STAGEDOOR_DEBUG=1"}, []string{before, `sh -c 'kill $PPID'; :`}, 143, ""},
	} {
		j := w.gitLabJob(t, "4", append(c.env, nobody)...)
		j.startGitLab("bash", gitLabEval, c.lines)
		if status := j.ends(); status != c.status || !strings.Contains(strings.TrimPrefix(j.output.String(), "$ "+before), c.says) || strings.Contains(j.output.String(), "@localhost") {
			t.Errorf("%s %q: status %d:\n%s", c.env, c.lines, status, j.output.String())
		}
	}
}

// buildkiteJob has the variables of a job, and the program that gets tokens.
func (w *world) buildkiteJob(t *testing.T, id string, env ...string) *job {
	t.Helper()
	token := w.issuer.Token("https://localhost", map[string]any{"iss": w.issuer.URL + "/buildkite", "organization_id": "acme", "job_id": id})
	j := w.job(t, append([]string{"BUILDKITE=true", "BUILDKITE_JOB_ID=" + id, "BUILDKITE_LABEL=test", "BUILDKITE_TIMEOUT=false", "MARK=set"}, env...)...)
	bin := t.TempDir()
	program := "#!/bin/sh\n[ \"$*\" != 'oidc request-token --audience https://localhost' ] || echo " + token + "\n"
	if err := os.WriteFile(filepath.Join(bin, "buildkite-agent"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	j.cmd.Env = append(j.cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	return j
}

const preExit = "ci/stagedoor-buildkite-plugin/hooks/pre-exit"

// testBuildkite gives the plugin the variables that Buildkite makes of the step.
func testBuildkite(t *testing.T, w *world) {
	var pipeline struct {
		Steps []struct {
			Plugins []map[string]map[string]string
		}
	}
	decode(t, snippet(t, w, "buildkite"), &pipeline)
	var definition struct {
		Name          string
		Configuration struct {
			Properties map[string]any
			Required   []string
		}
	}
	decode(t, part(t, "ci/stagedoor-buildkite-plugin/plugin.yml"), &definition)
	var env []string
	for location, config := range pipeline.Steps[0].Plugins[0] {
		location, _, _ = strings.Cut(location, "#")
		name := strings.ToUpper(strings.TrimSuffix(filepath.Base(location), "-buildkite-plugin"))
		if _, err := os.Stat(filepath.Join(root, strings.TrimPrefix(location, "github.com/stagedoor/stagedoor/"), "plugin.yml")); err != nil {
			t.Errorf("%s leads nowhere: %v", location, err)
		}
		for key, value := range config {
			if definition.Configuration.Properties[key] == nil {
				t.Errorf("the plugin knows no %s", key)
			}
			env = append(env, "BUILDKITE_PLUGIN_"+name+"_"+strings.ToUpper(key)+"="+value)
		}
	}
	j := w.buildkiteJob(t, "0190-01", append(env, "STAGEDOOR_DEBUG=1", "BUILDKITE_COMMAND_EXIT_STATUS=2")...)
	j.start(absolute(t, preExit))
	if seen, status := j.isHeld("bk-0190-01"); seen != sees(j.dir, "set") || status != 0 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func testBuildkiteNotHeld(t *testing.T, w *world) {
	gateway := "STAGEDOOR_GATEWAY=" + w.gateway
	for says, env := range map[string][]string{
		"-":                   {"BUILDKITE_COMMAND_EXIT_STATUS=2", "STAGEDOOR_DEBUG=1"},
		"--":                  {gateway, "BUILDKITE_COMMAND_EXIT_STATUS=0", "STAGEDOOR_DEBUG=1"},
		"---":                 {gateway, "BUILDKITE_COMMAND_EXIT_STATUS=-1", "BUILDKITE_JOB_CANCELLED=true", "STAGEDOOR_DEBUG=1"},
		"press \"New Build\"": {gateway, "BUILDKITE_COMMAND_EXIT_STATUS=2"},
		"curl: ":              {"STAGEDOOR_GATEWAY=localhost:1", "BUILDKITE_COMMAND_EXIT_STATUS=2", "STAGEDOOR_DEBUG=1"},
	} {
		j := w.buildkiteJob(t, "0190-03", env...)
		j.start(absolute(t, preExit))
		status, output := j.ends(), j.output.String()
		if silent := says[0] == '-'; status != 0 || silent && output != "" || !silent && !strings.Contains(output, says) {
			t.Errorf("%q: status %d: %s", env, status, output)
		}
	}
}

// A circleStep is a run step of CircleCI, whose short form is its command.
type circleStep struct{ Command, When string }

func (s *circleStep) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&s.Command)
	}
	type long circleStep
	return n.Decode((*long)(s))
}

func (w *world) circleJob(t *testing.T, id string, env ...string) *job {
	t.Helper()
	token := w.issuer.Token("acme", map[string]any{"iss": w.issuer.URL + "/circleci", "oidc.circleci.com/job-id": id})
	return w.job(t, append([]string{"CIRCLECI=true", "CIRCLE_JOB=test", "CIRCLE_NODE_INDEX=0", "CIRCLE_BUILD_URL=https://circleci.com/gh/acme/app/" + id,
		"CIRCLE_OIDC_TOKEN_V2=" + token, "MARK=set"}, env...)...)
}

func testCircleCI(t *testing.T, w *world) {
	var config struct {
		Jobs map[string]struct{ Steps []yaml.Node }
	}
	decode(t, snippet(t, w, "circleci"), &config)
	steps := config.Jobs["test"].Steps
	var last struct{ Run circleStep }
	if err := steps[len(steps)-1].Decode(&last); err != nil || last.Run.When != "on_fail" {
		t.Fatalf("%v: the last step is %+v", err, last)
	}
	j := w.circleJob(t, "77-01")
	j.start("bash", "-eo", "pipefail", "-c", last.Run.Command)
	if seen, status := j.isHeld("cci-77-01"); seen != sees(j.dir, "set") || status != 0 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

func testCircleCIOrb(t *testing.T, w *world) {
	var orb struct {
		Commands map[string]struct {
			Parameters map[string]struct{ Default string }
			Steps      []struct{ Run circleStep }
		}
	}
	decode(t, part(t, "ci/circleci/orb.yml"), &orb)
	hold := orb.Commands["hold"]
	step := hold.Steps[0].Run
	if hold.Parameters["when"].Default != "always" || step.When != "on_fail" {
		t.Errorf("%+v", hold)
	}
	for says, c := range map[string]struct{ when, debug string }{
		"STAGEDOOR_DEBUG=1": {"debug", ""},
		"curl: ":            {"debug", "STAGEDOOR_DEBUG=1"},
		"curl: (":           {"always", ""},
	} {
		given := map[string]string{"gateway": "localhost:1", "when": c.when, "wait": hold.Parameters["wait"].Default}
		command := regexp.MustCompile(`<< parameters\.([a-z]+) >>`).ReplaceAllStringFunc(step.Command, func(s string) string {
			return given[strings.Fields(s)[1][len("parameters."):]]
		})
		j := w.circleJob(t, "77-02", c.debug)
		j.start("bash", "-eo", "pipefail", "-c", command)
		if status := j.ends(); status != 0 || !strings.Contains(j.output.String(), says) {
			t.Errorf("%+v: status %d: %s", c, status, j.output.String())
		}
	}
}

func testJenkins(t *testing.T, w *world) {
	m := regexp.MustCompile(`(?s)failure \{\s+sh '([^']+)'`).FindStringSubmatch(snippet(t, w, "jenkins"))
	if m == nil {
		t.Fatal("no step for failures")
	}
	j := w.job(t, "JENKINS_URL=https://ci.example.com/", "BUILD_NUMBER=12", "BUILD_TAG=jenkins-app-12", "EXECUTOR_NUMBER=1", "JOB_NAME=app",
		"BUILD_URL=https://ci.example.com/job/app/12/", "STAGEDOOR_TOKEN="+w.token("app-12"), "MARK=set")
	j.start("sh", "-xec", m[1])
	if seen, status := j.isHeld("app-12"); seen != sees(j.dir, "set") || status != 0 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

func testCirrus(t *testing.T, w *world) {
	var config struct {
		Task struct {
			Env       map[string]string
			OnFailure struct {
				Terminal string `yaml:"terminal_script"`
			} `yaml:"on_failure"`
		} `yaml:"test_task"`
	}
	decode(t, snippet(t, w, "cirrus"), &config)
	token := w.issuer.Token(config.Task.Env["CIRRUS_OIDC_TOKEN_AUDIENCE"], map[string]any{"iss": w.issuer.URL + "/cirrus", "owner": "acme", "task_id": "4242"})
	j := w.job(t, "CIRRUS_CI=true", "CIRRUS_TASK_ID=4242", "CIRRUS_TASK_NAME=test", "CIRRUS_OIDC_TOKEN="+token, "MARK=set")
	j.start("sh", "-ec", config.Task.OnFailure.Terminal)
	if seen, status := j.isHeld("cirrus-4242"); seen != sees(j.dir, "set") || status != 0 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

// testShell: the command's status is that of the job.
func testShell(t *testing.T, w *world) {
	j := w.job(t, "STAGEDOOR_TOKEN="+w.token("shell-1"), "MARK=set")
	j.start("sh", "-ec", j.withMakefile(snippet(t, w, "shell")))
	if seen, status := j.isHeld("shell-1"); seen != sees(j.dir, "set") || status != 2 || !strings.Contains(j.output.String(), "testing\n") {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

// testShellOneLine: without a token nobody can enter, and the command runs as ever.
func testShellOneLine(t *testing.T, w *world) {
	j := w.job(t, "STAGEDOOR_INSTALL_DIR=bin")
	j.start("sh", "-ec", j.withMakefile("curl -fsSL https://"+w.gateway+"/install | sh -s -- run -- make test"))
	status, output := j.ends(), j.output.String()
	if status != 2 || !strings.Contains(output, "testing\n") || !strings.Contains(output, "nobody gets access") || strings.Contains(output, "warning") {
		t.Errorf("status %d: %s", status, output)
	}
	if _, err := os.Stat(filepath.Join(j.dir, "bin", "stagedoor-agent")); err != nil {
		t.Error(err)
	}
}

// withMakefile gives a job what a script of make test needs: tests that fail.
func (j *job) withMakefile(script string) string {
	j.t.Helper()
	testenv.Need(j.t, "make")
	if err := os.WriteFile(filepath.Join(j.dir, "Makefile"), []byte("test:\n\t@echo testing; exit 3\n"), 0o600); err != nil {
		j.t.Fatal(err)
	}
	return script
}

// testShellNoGateway: the lines fail without a gateway; those that the page gives
// for that case run the tests.
func testShellNoGateway(t *testing.T, w *world) {
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(part(t, "docs/ci/shell.md"), -1)
	for i, want := range []struct {
		status int
		runs   bool
	}{{7, false}, {2, true}} { // 7 is curl's
		j := w.job(t)
		j.start("sh", "-ec", j.withMakefile(strings.ReplaceAll(blocks[i][1], "terminal.example.com", "localhost:1")))
		if status := j.ends(); status != want.status || strings.Contains(j.output.String(), "testing\n") != want.runs {
			t.Errorf("%s: status %d: %s", blocks[i][1], status, j.output.String())
		}
	}
}
