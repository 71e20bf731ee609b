package ci_test

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// action is action.yml, as far as the runner needs it here.
type action struct {
	Inputs map[string]struct {
		Default  string
		Required bool
	}
	Runs struct {
		Using, Main, Post string
		PostIf            string `yaml:"post-if"`
	}
}

// A gitHubJob is a job with the action as one of its steps. It speaks the protocol
// between runner and action.
type gitHubJob struct {
	w      *world
	t      *testing.T
	action action
	with   map[string]string // inputs that the workflow gives
	temp   string
	env    []string
	state  string
}

func (w *world) gitHubJob(t *testing.T, run string, env ...string) *gitHubJob {
	t.Helper()
	g := &gitHubJob{w: w, t: t, temp: t.TempDir()}
	decode(t, part(t, "action.yml"), &g.action)
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct {
				Uses string
				With map[string]string
			}
		}
	}
	decode(t, snippet(t, w, "github"), &workflow)
	for _, step := range workflow.Jobs["test"].Steps {
		if strings.HasPrefix(step.Uses, "stagedoor/stagedoor@") {
			g.with = step.With
		}
	}
	g.state = filepath.Join(g.temp, "state")
	g.env = append([]string{
		"GITHUB_ACTIONS=true", "GITHUB_JOB=test", "GITHUB_RUN_ID=" + run, "GITHUB_RUN_ATTEMPT=1", "GITHUB_REPOSITORY=acme/app", "GITHUB_SERVER_URL=https://github.com",
		"RUNNER_NAME=runner", "RUNNER_TEMP=" + g.temp, "GITHUB_STATE=" + g.state, "GITHUB_STEP_SUMMARY=" + filepath.Join(g.temp, "summary"), "TMPDIR=" + shortTempDir(t),
	}, env...)
	if err := os.WriteFile(g.state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

// step runs one of the two steps of the action, at a time when the job has fared so.
func (g *gitHubJob) step(program, status string, env ...string) *job {
	g.t.Helper()
	all := append(append([]string{}, g.env...), env...)
	for name, input := range g.action.Inputs {
		value, given := g.with[name]
		if !given {
			value = strings.ReplaceAll(input.Default, "${{ job.status }}", status)
		}
		all = append(all, "INPUT_"+strings.ToUpper(strings.ReplaceAll(name, " ", "_"))+"="+value)
	}
	state, err := os.ReadFile(g.state)
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(state)) {
		all = append(all, "STATE_"+strings.TrimSpace(line))
	}
	j := g.w.job(g.t, all...)
	j.cmd.Env = append(j.cmd.Env, "GITHUB_WORKSPACE="+j.dir)
	j.start("node", absolute(g.t, program))
	return j
}

// pid is that of the agent in the background.
func (g *gitHubJob) pid() int {
	g.t.Helper()
	state, err := os.ReadFile(g.state)
	if err != nil {
		g.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^pid=(\d+)$`).FindSubmatch(state)
	if m == nil {
		return 0
	}
	pid, err := strconv.Atoi(string(m[1]))
	if err != nil {
		g.t.Fatal(err)
	}
	return pid
}

// testGitHub: people can enter while the job runs, and when it fails it waits for
// them with what later steps have added to the environment. Then nothing is left.
func testGitHub(t *testing.T, w *world) {
	w.issuer.Job("request-secret", map[string]any{
		"iss": w.issuer.URL + "/github", "repository_owner_id": "123456", "run_id": "100", "check_run_id": "1", "actor": "alice", "actor_id": "583231", "event_name": "push"})
	g := w.gitHubJob(t, "100", "RUNNER_DEBUG=1", "ACTIONS_ID_TOKEN_REQUEST_URL="+w.issuer.URL+"/request?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-secret")
	if g.action.Runs.PostIf != "always()" || !strings.HasPrefix(g.action.Runs.Using, "node") {
		t.Errorf("%+v", g.action.Runs)
	}
	main := g.step(g.action.Runs.Main, "success")
	if status, output := main.ends(), main.output.String(); status != 0 || !strings.Contains(output, "\nssh -p ") || !strings.Contains(output, "::notice title=Stagedoor::ssh ") {
		t.Fatalf("main: status %d: %s", status, output)
	}
	t.Cleanup(func() { syscall.Kill(g.pid(), syscall.SIGKILL) }) // when post has failed
	if out := w.enter(t, "gh-100-1", "env"); strings.Contains(out, "INPUT_") || !strings.Contains(out, "GITHUB_JOB=test") {
		t.Errorf("while the job runs: %s", out)
	}
	post := g.step(g.action.Runs.Post, "failure", "MARK=set")
	if seen, status := post.isHeld("gh-100-1"); seen != sees(post.dir, "set") || status != 0 {
		t.Errorf("post: status %d, seen %q", status, seen)
	}
	g.leavesNothing()
}

// leavesNothing looks for the agent in the background.
func (g *gitHubJob) leavesNothing() {
	g.t.Helper()
	if err := syscall.Kill(g.pid(), 0); err == nil {
		g.t.Error("the agent is still there")
		syscall.Kill(g.pid(), syscall.SIGKILL)
	}
}

// testGitHubToken: a host token is good for one agent, which stays.
func testGitHubToken(t *testing.T, w *world) {
	g := w.gitHubJob(t, "102", "MARK=set")
	g.with = map[string]string{"gateway": w.gateway, "when": "always", "token": w.token("task-102")}
	main := g.step(g.action.Runs.Main, "success")
	if status := main.ends(); status != 0 || !strings.Contains(main.output.String(), " task-102@localhost") {
		t.Fatalf("main: status %d", status)
	}
	defer g.leavesNothing()
	post := g.step(g.action.Runs.Post, "failure")
	if seen, status := post.isHeld("task-102"); seen != sees(main.dir, "set") || status != 0 {
		t.Errorf("post: status %d, seen %q", status, seen)
	}
}

// testGitHubNotHeld: a job that has passed or was cancelled ends at once.
func testGitHubNotHeld(t *testing.T, w *world) {
	for i, jobStatus := range []string{"success", "cancelled"} {
		task := fmt.Sprintf("task-20%d", i)
		g := w.gitHubJob(t, "103")
		g.with = map[string]string{"gateway": w.gateway, "when": "always", "token": w.token(task)}
		if status := g.step(g.action.Runs.Main, "success").ends(); status != 0 || g.pid() == 0 {
			t.Fatalf("main: status %d", status)
		}
		post := g.step(g.action.Runs.Post, jobStatus)
		if status, output := post.ends(), post.output.String(); status != 0 || output != "" {
			t.Errorf("%s: status %d: %s", jobStatus, status, output)
		}
		g.leavesNothing()
	}
}

// testGitHubNotOpened: an ordinary run dials nothing, one that succeeds waits for
// nobody, and what goes wrong here fails no job.
func testGitHubNotOpened(t *testing.T, w *world) {
	for _, c := range []struct {
		env    []string
		with   map[string]string
		status string
		main   string // what it prints, "" for nothing
		post   string
	}{
		{nil, map[string]string{"gateway": "nobody.invalid"}, "failure", "", `tick "Enable debug logging"`},
		{[]string{"RUNNER_DEBUG=1"}, map[string]string{"gateway": "localhost:65535"}, "failure", "::warning title=Stagedoor::Nobody can enter this job: https://localhost:65535/agents/SHA256SUMS: ", ""},
		{[]string{"RUNNER_DEBUG=1"}, map[string]string{"gateway": "x; id"}, "failure", "write it as host or host:port", ""},
		{[]string{"STAGEDOOR_TOKEN=abc"}, map[string]string{"gateway": w.gateway, "when": "always"}, "failure", "::warning title=Stagedoor::Nobody can enter this job: the agent ended with status 3", ""},
	} {
		g := w.gitHubJob(t, "101", c.env...)
		g.with = c.with
		for _, step := range []struct{ program, want string }{{g.action.Runs.Main, c.main}, {g.action.Runs.Post, c.post}} {
			j := g.step(step.program, c.status)
			status, output := j.ends(), j.output.String()
			if status != 0 || step.want == "" && output != "" || !strings.Contains(output, step.want) {
				t.Errorf("%s of %q %q: status %d: %s", step.program, c.env, c.with, status, output)
			}
		}
	}
}

// testGitHubRunner: a job that was started for debugging is held, whoever wrote it.
func testGitHubRunner(t *testing.T, w *world) {
	hook := absolute(t, "ci/runner-hooks/github-completed.sh")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, fmt.Appendf(nil, "#!/bin/sh\necho %s\n", w.token("runner-7")), 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"GITHUB_ACTIONS=true", "GITHUB_JOB=test", "GITHUB_RUN_ID=7", "RUNNER_NAME=r7", "STAGEDOOR_GATEWAY=" + w.gateway, "STAGEDOOR_TOKEN_PROGRAM=" + token, "MARK=set"}
	ordinary := w.job(t, env...)
	ordinary.start("bash", "-e", hook)
	if status := ordinary.ends(); status != 0 || ordinary.output.String() != "" {
		t.Errorf("an ordinary run: status %d: %s", status, ordinary.output.String())
	}
	j := w.job(t, append(env, "RUNNER_DEBUG=1")...)
	workspace := filepath.Join(j.dir, "workspace")
	if err := os.Mkdir(workspace, 0o700); err != nil {
		t.Fatal(err)
	}
	j.cmd.Env = append(j.cmd.Env, "GITHUB_WORKSPACE="+workspace)
	j.start("bash", "-e", hook)
	if seen, status := j.isHeld("runner-7"); seen != sees(workspace, "set") || status != 0 {
		t.Errorf("status %d, seen %q", status, seen)
	}
}

// TestGitHubDownloadGoesOn: a gateway closes slow connections, so the action fetches
// the rest by another.
func TestGitHubDownloadGoesOn(t *testing.T) {
	t.Parallel()
	agent := "#!/bin/sh\necho \"ssh a-$1@localhost\"\n" + strings.Repeat("# an agent is larger than what is sent at once\n", 10000)
	sum := sha256.Sum256([]byte(agent))
	asked := make(chan string, 10) // the ranges
	w := &world{t: t, dir: t.TempDir()}
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/SHA256SUMS") {
			fmt.Fprintf(rw, "%x  %s\n", sum, agentName())
			return
		}
		asked <- r.Header.Get("Range")
		if len(asked) == 1 {
			rw.Header().Set("Content-Length", strconv.Itoa(len(agent)))
			io.WriteString(rw, agent[:1000])
			http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(agent))
	}))
	t.Cleanup(server.Close)
	w.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	w.forge = &testenv.Forge{Server: server}
	w.gateway = strings.TrimPrefix(server.URL, "https://")
	g := w.gitHubJob(t, "1", "RUNNER_DEBUG=1")
	main := g.step(g.action.Runs.Main, "success")
	if status := main.ends(); status != 0 || !strings.Contains(main.output.String(), "ssh a-connect@localhost") {
		t.Errorf("status %d", status)
	}
	if n := len(asked); n != 2 {
		t.Fatalf("it asked %d times", n)
	}
	if whole, rest := <-asked, <-asked; whole != "" || rest != "bytes=1000-" {
		t.Errorf("it asked for %q and %q", whole, rest)
	}
}
