package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// agentProgram builds the agent's binary, once for each gateway.
func (r *running) agentProgram() string {
	r.t.Helper()
	file := filepath.Join(r.dir, "stagedoor-agent")
	if _, err := os.Stat(file); err == nil {
		return file
	}
	out, err := exec.CommandContext(r.t.Context(), "go", "build", "-o", file, "github.com/stagedoor/stagedoor/cmd/stagedoor-agent").CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	return file
}

// job is a CI job that runs stagedoor-agent connect.
type job struct {
	cmd            *exec.Cmd
	stdout, stderr *logBuffer
	done           chan struct{}
}

// startJob runs the agent in an environment of its own.
func (r *running) startJob(env map[string]string, args ...string) *job {
	r.t.Helper()
	program := r.agentProgram()
	ended := make(chan struct{})
	j := &job{stdout: &logBuffer{ended: ended}, stderr: &logBuffer{ended: ended}, done: ended}
	_, port, _ := net.SplitHostPort(r.httpsAddress())
	args = append([]string{"connect", "--gateway", "localhost:" + port, "--ca-file", filepath.Join(r.dir, "cert.pem")}, args...)
	ctx, cancel := context.WithCancel(context.Background())
	j.cmd = exec.CommandContext(ctx, program, args...)
	j.cmd.Dir, j.cmd.Stdout, j.cmd.Stderr = r.dir, j.stdout, j.stderr
	j.cmd.Env = []string{"PATH=" + r.dir + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "SSL_CERT_FILE=" + filepath.Join(r.dir, "partners.pem")}
	for name, value := range env {
		j.cmd.Env = append(j.cmd.Env, name+"="+value)
	}
	if err := j.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(ended)
		j.cmd.Wait()
	}()
	r.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return j
}

// ends returns the status that the job's step ended with.
func (j *job) ends() int {
	<-j.done
	return j.cmd.ProcessState.ExitCode()
}

// startCI starts a gateway that takes the ID tokens of an issuer in four kinds,
// and knows a forge, as github and as 127.0.0.1.
func startCI(t *testing.T) (*running, *testenv.Issuer, *testenv.Forge) {
	t.Helper()
	issuer, forge := testenv.NewIssuer(t), testenv.NewForge(t)
	r := startDaemon(t, "")
	// All servers of httptest have the same certificate.
	write(t, filepath.Join(r.dir, "partners.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forge.Certificate().Raw})))
	r.configure(fmt.Sprintf(`
ca_file: partners.pem
forges:
  - {name: github, kind: github, url: %[2]q}
  - {name: 127.0.0.1, kind: github, url: %[2]q}
hosts:
  issuers:
    - {profile: github, issuer: %[1]s/github, require: {repository_owner_id: ["123456"]}}
    - {profile: gitlab, url: %[1]s/gitlab, require: {namespace_id: ["7"]}}
    - {profile: buildkite, issuer: %[1]s/buildkite, require: {organization_id: [acme]}}
    - {profile: circleci, url: acme, issuer: %[1]s/circleci}
`, issuer.URL, forge.URL))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)
	return r, issuer, forge
}

func gitHubJob(issuer *testenv.Issuer, run, check string) map[string]any {
	return map[string]any{
		"iss": issuer.URL + "/github", "repository_owner_id": "123456", "run_id": run, "check_run_id": check,
		"actor": "Alice", "actor_id": "583231", "event_name": "push",
	}
}

// TestGitHubActions: a job with the permission for ID tokens needs nothing else.
// Whoever set it off enters, also end to end.
func TestGitHubActions(t *testing.T) {
	t.Parallel()
	r, issuer, forge := startCI(t)
	alice, bob := testenv.NewKey(t, r.dir, "alice"), testenv.NewKey(t, r.dir, "bob")
	forge.Set(583231, "alice-renamed", alice.Line)
	forge.Set(1, "alice", bob.Line) // who took over the name
	issuer.Job("request-secret", gitHubJob(issuer, "100", "2001"))
	actions := map[string]string{"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": issuer.URL + "/request?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret"}
	j := r.startJob(actions, "--forge", "github=github@"+forge.URL)
	j.stdout.await(t, "gh-100-2001@localhost\n", 1)
	if out, err := r.enter("gh-100-2001", alice, "env"); err != nil || strings.Contains(out, "request-secret") || !strings.Contains(out, "STAGEDOOR_TASK=gh-100-2001") {
		t.Errorf("%v: %s", err, out)
	}
	r.log.await(t, `"identity":"github:alice-renamed"`, 1)
	if out, err := r.enter("gh-100-2001", bob, "true"); err == nil {
		t.Errorf("whoever took over the name was let in: %s", out)
	}
	j.stderr.await(t, "host key there", 1)
	if out, err := r.paste(j.stderr.String(), alice); err != nil || out != "in\n" {
		t.Errorf("end to end: %v: %q\n%s", err, out, j.stderr)
	}
	if out, err := r.paste(j.stderr.String(), bob); err == nil {
		t.Errorf("end to end: %q", out)
	}

	issuer.Job("request-secret", map[string]any{"iss": issuer.URL + "/github", "repository_owner_id": "9", "run_id": "1", "check_run_id": "1"})
	other := r.startJob(actions)
	if status := other.ends(); status != 3 || !strings.Contains(other.stderr.String(), "repository_owner_id") {
		t.Errorf("another's job ended with %d: %s", status, other.stderr)
	}
}

// TestRerunActor: whoever pressed re-run enters where the operator lets jobs declare
// it, and in no first attempt.
func TestRerunActor(t *testing.T) {
	t.Parallel()
	r, issuer, forge := startCI(t)
	alice, bob := testenv.NewKey(t, r.dir, "alice"), testenv.NewKey(t, r.dir, "bob")
	forge.Set(583231, "alice", alice.Line)
	forge.Set(7, "bob", bob.Line)
	actions := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_TRIGGERING_ACTOR": "Bob",
		"ACTIONS_ID_TOKEN_REQUEST_URL": issuer.URL + "/request?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret"}
	check := 0
	enters := func(attempt string) (a, b bool) {
		t.Helper()
		check++
		claims := gitHubJob(issuer, "100", fmt.Sprint(check))
		claims["run_attempt"] = attempt
		issuer.Job("request-secret", claims)
		task := fmt.Sprintf("gh-100-%d", check)
		r.startJob(actions).stdout.await(t, task+"@localhost\n", 1)
		_, aliceErr := r.enter(task, alice, "true")
		_, bobErr := r.enter(task, bob, "true")
		return aliceErr == nil, bobErr == nil
	}
	if a, b := enters("2"); !a || b {
		t.Errorf("not allowed: alice %v, bob %v", a, b)
	}
	write(t, r.file, strings.Replace(read(t, r.file), "{profile: github, ", "{profile: github, triggering_actor: true, ", 1))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 2)
	if a, b := enters("2"); !a || !b {
		t.Errorf("allowed: alice %v, bob %v\n%s", a, b, r.log)
	}
	r.log.await(t, `"identity":"github:bob"`, 1)
	if a, b := enters("1"); !a || b {
		t.Errorf("the first attempt: alice %v, bob %v", a, b)
	}
}

// paste runs the command for end to end out of a job's log, with what the guest's
// own configuration has.
func (r *running) paste(log string, k testenv.Key) (string, error) {
	r.t.Helper()
	hostKey, err := ssh.ParsePrivateKey([]byte(read(r.t, filepath.Join(r.dir, "state", hostKeyFile))))
	if err != nil {
		r.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(r.sshAddress())
	known := write(r.t, filepath.Join(r.dir, "known_hosts_paste"), fmt.Sprintf("[localhost]:%s %s", port, ssh.MarshalAuthorizedKey(hostKey.PublicKey())))
	config := write(r.t, filepath.Join(r.dir, "ssh_config_paste"), fmt.Sprintf(
		"IdentityFile %s\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile %s\nGlobalKnownHostsFile none\nBatchMode yes\nLogLevel ERROR\n", k.File, known))
	for line := range strings.Lines(log) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "ssh -J "); ok {
			out, err := exec.CommandContext(r.t.Context(), "/bin/sh", "-c", "ssh -F "+config+" -J "+command+" echo in").Output()
			return string(out), err
		}
	}
	r.t.Fatalf("no command for end to end in %s", log)
	return "", nil
}

// TestOtherProviders: each has its way of giving a job its token.
func TestOtherProviders(t *testing.T) {
	t.Parallel()
	r, issuer, forge := startCI(t)
	bob := testenv.NewKey(t, r.dir, "bob")
	forge.Set(7, "bob", bob.Line)
	gitLab := issuer.Token("https://localhost", map[string]any{
		"iss": issuer.URL + "/gitlab", "namespace_id": "7", "project_id": "2", "job_id": "4711", "user_login": "bob", "user_id": "7"})
	write(t, filepath.Join(r.dir, "bk-token"), issuer.Token("https://localhost", map[string]any{
		"iss": issuer.URL + "/buildkite", "organization_id": "acme", "job_id": "0190-ab"}))
	program := write(t, filepath.Join(r.dir, "buildkite-agent"),
		"#!/bin/sh\ntest \"$*\" = 'oidc request-token --audience https://localhost' && cat "+filepath.Join(r.dir, "bk-token")+"\n")
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	circleCI := issuer.Token("acme", map[string]any{"iss": issuer.URL + "/circleci", "oidc.circleci.com/job-id": "77-ff"})

	jobs := map[string]map[string]string{
		"gl-4711":    {"GITLAB_CI": "true", "STAGEDOOR_TOKEN": gitLab},
		"bk-0190-ab": {"BUILDKITE": "true"},
		"cci-77-ff":  {"CIRCLECI": "true", "CIRCLE_OIDC_TOKEN_V2": circleCI},
	}
	for _, task := range slices.Sorted(maps.Keys(jobs)) {
		j := r.startJob(jobs[task])
		j.stdout.await(t, task+"@localhost\n", 1)
	}
	if out, err := r.enter("gl-4711", bob, "echo in"); err != nil || out != "in\n" {
		t.Errorf("%v: %q", err, out)
	}
	r.log.await(t, `"identity":"127.0.0.1:bob"`, 1)

	copied := r.startJob(jobs["gl-4711"])
	if status := copied.ends(); status != 6 || !strings.Contains(copied.stderr.String(), "replayed") {
		t.Errorf("a copy of the token ended with %d: %s", status, copied.stderr)
	}
}

// TestTasksOfProvidersAreTheirs: whoever can mint tokens cannot take a job's place.
func TestTasksOfProvidersAreTheirs(t *testing.T) {
	t.Parallel()
	r, _, _ := startCI(t)
	var token strings.Builder
	if err := run(t.Context(), []string{"token", "--config", r.file, "--task", "gh-100-2001"}, nil, &token, os.Stderr); err != nil {
		t.Fatal(err)
	}
	j := r.startJob(map[string]string{"STAGEDOOR_TOKEN": strings.TrimSpace(token.String())})
	if status := j.ends(); status != 3 || !strings.Contains(j.stderr.String(), "kept for the jobs of github") {
		t.Errorf("ended with %d: %s", status, j.stderr)
	}
}

func TestIssuersAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		`[{profile: github, require: {repository_owner_id: ["1"]}}]`: "",
		`[{profile: github}]`: "require one of the claims",
		`[{profile: github, require: {repository_owner_id: ["1"]}, triggering_actor: true}]`: "",
		`[{profile: gitlab, url: "https://git.example.com", triggering_actor: true}]`:        "only jobs of GitHub Actions",
		`[{profile: github, require: {repository_owner_id: ["1"]}, triggering_actor: 1}]`:    "expected true or false",
		`[{profile: travis}]`:                                                               "is not known",
		`[{profile: gitlab, url: "http://git.example.com"}]`:                                "not an https URL",
		`[{profile: circleci}]`:                                                             "no audience is set",
		`[{profile: generic, url: "https://ci.example.com"}]`:                               "issuer oidc",
		`[{profile: github, require: {repository_owner_id: [1]}}]`:                          "put it in quotes",
		`[{profile: buildkite, require: {organization_id: [a]}, task: "x-{job_id}", n: 1}]`: "there is no such key",
	} {
		c, r := loadText(t, "domain: a.example.com\nstate_dir: "+t.TempDir()+"\nhosts: {issuers: "+text+"}\n")
		var asked partners
		for range 2 { // a mistake is not forgotten
			c.settings(r, &certificates{}, &asked, false)
			if got := mistakesIn(r); want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", text, got, want)
			}
			c, r = loadText(t, "domain: a.example.com\nstate_dir: "+t.TempDir()+"\nhosts: {issuers: "+text+"}\n")
		}
		asked.close()
	}
}
