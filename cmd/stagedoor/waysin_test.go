//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/webhook"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A way is a section of docs/authentication.md with what it has people write, in
// the order of the page.
type way struct {
	name                             string
	once                             string // before all else
	config, gateway, ci, job, answer string
	pipeline                         string // YAML for a CI provider
	guest                            string
}

var (
	waySection = regexp.MustCompile(`(?m)^## `)
	wayBlock   = regexp.MustCompile("(?ms)^([A-Z][^`]*?(?:`[^`\n]+`[^`]*?)*?):\n\n```(\\w+)\n(.*?)^```$")
)

// readWays reads the examples out of the page. What a block is shows by the words
// before it.
func readWays(t *testing.T) []*way {
	t.Helper()
	var ways []*way
	for _, section := range waySection.Split(read(t, filepath.Join(moduleRoot(t), "docs", "authentication.md")), -1)[1:] {
		title, body, _ := strings.Cut(section, "\n")
		w := &way{name: title}
		for _, m := range wayBlock.FindAllStringSubmatch(body, -1) {
			paragraphs := strings.Split(m[1], "\n\n")
			label, kind, text := paragraphs[len(paragraphs)-1], m[2], m[3]
			into := map[string]*string{
				"Once sh": &w.once, "On the gateway yaml": &w.config, "On the gateway sh": &w.gateway, "In the CI sh": &w.ci, "In the job sh": &w.job,
				"The guest sh": &w.guest, "In yaml": &w.pipeline, "The webhook json": &w.answer,
			}
			found := false
			for _, start := range []string{"Once", "On the gateway", "In the CI", "In the job", "The guest", "The webhook", "In"} {
				if p := into[start+" "+kind]; strings.HasPrefix(label, start) && p != nil {
					*p, found = text, true
					break
				}
			}
			if !found {
				t.Errorf("%s: nobody knows what to do with the block after %q", title, label)
			}
		}
		if w.guest != "" {
			ways = append(ways, w)
		}
	}
	return ways
}

// TestWaysIn runs each example of docs/authentication.md as it stands: alice enters
// with what the page has everybody write, and mallory does not. Programs of the
// same names lead those that it runs to a gateway of this machine.
func TestWaysIn(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ssh-keygen")
	testenv.Need(t, "openssl")
	ways := readWays(t)
	if len(ways) != 16 {
		t.Errorf("there are %d ways in: %+v", len(ways), ways)
	}
	program := (&running{t: t, dir: t.TempDir()}).agentProgram()
	for _, w := range ways {
		t.Run(strings.ReplaceAll(w.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, program)
			s.play(w)
		})
	}
}

// A stage is a gateway with all that examples speak of around it.
type stage struct {
	*running
	issuer *testenv.Issuer
	forge  *testenv.Forge
	hook   *httptest.Server
	answer string // of the webhook, about alice
	keys   map[string]testenv.Key
}

func newStage(t *testing.T, agent string) *stage {
	s := &stage{running: startDaemon(t, ""), issuer: testenv.NewIssuer(t), forge: testenv.NewForge(t), keys: map[string]testenv.Key{}}
	for _, name := range []string{"alice", "mallory"} {
		s.keys[name] = testenv.NewKey(t, s.dir, name)
	}
	s.forge.Set(583231, "alice", s.keys["alice"].Line)
	s.forge.Set(2, "mallory", s.keys["mallory"].Line)
	s.hook = httptest.NewTLSServer(http.HandlerFunc(s.serveHook))
	t.Cleanup(s.hook.Close)
	writePEM(t, filepath.Join(s.dir, "partners.pem"), s.hook.Certificate().Raw)
	cert := certificateFor(t, "terminal.example.com", "localhost")
	testenv.WriteCertificate(t, s.dir, cert)
	s.wrap("stagedoor-agent", fmt.Sprintf(`exec %s "$@" --gateway localhost:%s --audience https://terminal.example.com --ca-file %s/cert.pem`,
		agent, port(s.httpsAddress()), s.dir))
	hostKey, err := ssh.ParsePrivateKey([]byte(read(t, filepath.Join(s.dir, "state", hostKeyFile))))
	if err != nil {
		t.Fatal(err)
	}
	known := write(t, filepath.Join(s.dir, "known"), "terminal.example.com "+string(ssh.MarshalAuthorizedKey(hostKey.PublicKey())))
	s.wrap("ssh", fmt.Sprintf("exec %s -F none -o HostName=127.0.0.1 -o Port=%s -o HostKeyAlias=terminal.example.com -o UserKnownHostsFile=%s "+
		"-o GlobalKnownHostsFile=none -o BatchMode=${BATCH:-yes} -o IdentityAgent=none -o IdentitiesOnly=yes -o LogLevel=${LEVEL:-ERROR} -i $WHO \"$@\"",
		testenv.Need(t, "ssh"), port(s.sshAddress()), known))
	return s
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// wrap puts a program before those of the machine.
func (s *stage) wrap(name, script string) {
	bin := filepath.Join(s.dir, "bin")
	os.MkdirAll(bin, 0o700)
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// here has an example use the files of the stage.
func (s *stage) here(text string) string {
	return strings.NewReplacer("/etc/stagedoor/", s.dir+"/", "https://ci.example.com/", s.hook.URL+"/", "https://login.example.com", s.issuer.URL+"/corp",
		"- kind: github\n", "- kind: github\n        name: github\n        url: "+s.issuer.URL+"\n").Replace(text)
}

// sh is a shell in which an example runs.
func (s *stage) sh(script string, env map[string]string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), "/bin/sh", "-e", "-c", s.here(script))
	cmd.Dir = s.dir
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + filepath.Join(s.dir, "bin") + ":" + os.Getenv("PATH"), "STAGEDOOR_CONFIG=" + s.file,
		"SSL_CERT_FILE=" + filepath.Join(s.dir, "partners.pem"), "STAGEDOOR_FORGE=github=github@" + s.forge.URL, "CLIENT_SECRET=" + testenv.ClientSecret}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// play runs an example.
func (s *stage) play(w *way) {
	t := s.t
	s.answer = w.answer
	if out, err := s.sh(w.once, nil).CombinedOutput(); err != nil {
		t.Fatalf("once: %v: %s", err, out)
	}
	if out, err := s.sh(w.gateway, nil).CombinedOutput(); err != nil {
		t.Fatalf("on the gateway: %v: %s", err, out)
	}
	s.takeConfig(w.config)
	script, env := w.ci+w.job, map[string]string(nil)
	if w.pipeline != "" {
		script, env = s.pipeline(w)
	}
	job := s.sh(script, env)
	log := &logBuffer{ended: make(chan struct{})}
	job.Stdout, job.Stderr = log, log
	// To the job and what it started.
	job.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	job.Cancel = func() error { return syscall.Kill(-job.Process.Pid, syscall.SIGTERM) }
	if err := job.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(log.ended)
		job.Wait()
	}()
	t.Cleanup(func() {
		job.Cancel()
		<-log.ended
	})
	task, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(w.guest), "ssh "), "@")
	log.await(t, task+"@terminal.example.com\n", 1)
	for who, want := range map[string]string{"alice": "in\n", "mallory": ""} {
		cmd := s.sh(w.guest, s.guest(w, who, log))
		cmd.Stdin = strings.NewReader("echo in\n")
		cmd.Stderr = s.screen(w, who)
		out, err := cmd.Output()
		if string(out) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %v: %q, want %q\n%s\n%s", who, err, out, want, log, s.log)
		}
	}
	if n := strings.Count(log.String(), "the one-time password: "); n > 1 {
		t.Errorf("the log has the one-time password %d times", n)
	}
}

// guest is what surrounds somebody who is about to enter.
func (s *stage) guest(w *way, who string, log *logBuffer) map[string]string {
	env := map[string]string{"WHO": s.keys[who].File}
	if strings.HasPrefix(w.name, "A browser") {
		env["BATCH"], env["LEVEL"], env["WHO"] = "no", "INFO", testenv.NewKey(s.t, s.dir, "unknown-"+who).File
	}
	if w.name == "A one-time password" {
		answer := map[string]string{"mallory": auth.NewOneTimePassword()}
		if m := regexp.MustCompile(`the one-time password: (\S+)`).FindStringSubmatch(log.String()); m != nil {
			answer["alice"] = m[1]
		}
		s.wrap("answer", "echo "+answer[who])
		env["BATCH"], env["SSH_ASKPASS"], env["SSH_ASKPASS_REQUIRE"] = "no", filepath.Join(s.dir, "bin", "answer"), "force"
	}
	return env
}

// link is what a guest is shown to sign in by a browser.
var link = regexp.MustCompile(`https://\S+/signin/\S+`)

// people are what the providers say of those at the browser.
var people = map[string]map[string]any{
	"alice":   {"sub": "1", "preferred_username": "alice", "id": 583231, "login": "alice"},
	"mallory": {"sub": "2", "preferred_username": "mallory", "id": 2, "login": "mallory"},
}

// screen is what a guest sees. Where there is a link, they sign in at it.
func (s *stage) screen(w *way, who string) io.Writer {
	provider := map[string]string{"A browser": "corp", "A browser and GitHub": "github"}[w.name]
	if provider == "" {
		return io.Discard
	}
	roots := s.issuer.Roots()
	roots.AppendCertsFromPEM([]byte(read(s.t, filepath.Join(s.dir, "cert.pem"))))
	browser := testenv.NewBrowser(s.t, roots, map[string]string{"terminal.example.com": s.httpsAddress()})
	s.issuer.SignedIn(people[who])
	screen := new(logBuffer)
	go func() {
		screen.await(s.t, "This goes on by itself", 1)
		browser.SignIn(link.FindString(screen.String()), provider)
	}()
	return screen
}

// takeConfig adds an example's lines to the configuration.
func (s *stage) takeConfig(more string) {
	s.t.Helper()
	more = regexp.MustCompile(`( +)- profile: (\w+)\n`).ReplaceAllString(more, "$0$1  issuer: "+s.issuer.URL+"/$2\n")
	s.configure(s.here(more) + fmt.Sprintf("ca_file: partners.pem\nforges:\n  - {name: github, kind: github, url: %[1]q}\n  - {name: gitlab, kind: github, url: %[1]q}\n", s.forge.URL))
	write(s.t, s.file, strings.Replace(read(s.t, s.file), "domain: localhost", "domain: terminal.example.com", 1))
	s.signal(syscall.SIGHUP)
	s.log.await(s.t, "configuration reloaded", 1)
}

// pipeline is what a CI provider makes of its YAML: the script of the job, and what
// it puts into the job's environment.
func (s *stage) pipeline(w *way) (script string, env map[string]string) {
	var file any
	if err := yaml.Unmarshal([]byte(w.pipeline), &file); err != nil {
		s.t.Fatal(err)
	}
	found := map[string][]string{}
	collect(file, "", found)
	script = strings.Join(slices.Concat(found["run"], found["command"], found["script"]), "\n")
	has := func(key, value string) bool { return slices.Contains(found[key], value) }
	claims := func(more map[string]any) map[string]any {
		maps.Copy(more, map[string]any{"iss": s.issuer.URL + "/" + strings.ToLower(strings.Fields(w.name)[0])})
		return more
	}
	env = map[string]string{}
	switch w.name {
	case "GitHub Actions":
		env["GITHUB_ACTIONS"] = "true"
		s.issuer.Job("secret", claims(map[string]any{"repository_owner_id": "123456", "run_id": "9876543210", "check_run_id": "27123456789",
			"actor": "alice", "actor_id": "583231", "event_name": "push"}))
		if has("id-token", "write") {
			env["ACTIONS_ID_TOKEN_REQUEST_URL"], env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = s.issuer.URL+"/request?api-version=2.0", "secret"
		}
	case "GitLab CI":
		env["GITLAB_CI"] = "true"
		for _, audience := range found["aud"] {
			env["STAGEDOOR_TOKEN"] = s.issuer.Token(audience, claims(map[string]any{"namespace_id": "4242", "project_id": "1", "job_id": "7654321",
				"user_login": "alice", "user_id": "583231"}))
		}
	case "Buildkite":
		env["BUILDKITE"] = "true"
		token := write(s.t, filepath.Join(s.dir, "bk"), s.issuer.Token("https://terminal.example.com",
			claims(map[string]any{"organization_slug": "acme", "job_id": "0190046e-e199-453b-a302-a21a4d649d31"})))
		s.wrap("buildkite-agent", `test "$*" = "oidc request-token --audience https://terminal.example.com" && cat `+token)
	case "CircleCI":
		env["CIRCLECI"] = "true"
		if len(found["context"]) > 0 {
			env["CIRCLE_OIDC_TOKEN_V2"] = s.issuer.Token("8b31e8a4-7d5a-4e8f-a8b2-7a6f3f3d2c11",
				claims(map[string]any{"oidc.circleci.com/job-id": "5f9e5c52-3d5c-4f0b-8f11-0f8a2c1b7d66"}))
		}
	}
	return script, env
}

// collect finds all texts in a document, by the key that they stand below.
func collect(v any, key string, found map[string][]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			collect(member, name, found)
		}
	case []any:
		for _, item := range v {
			collect(item, key, found)
		}
	case string:
		found[key] = append(found[key], v)
	}
}

// serveHook is the web site of the CI: the webhook of the example, which knows
// alice, and the keys that the CI publishes.
func (s *stage) serveHook(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		http.ServeFile(w, r, filepath.Join(s.dir, "keys.json"))
		return
	}
	body, err := io.ReadAll(r.Body)
	text, readErr := os.ReadFile(filepath.Join(s.dir, "webhook_secret"))
	secret, secretErr := webhook.ParseSecret(string(text))
	var question struct {
		Data struct{ Task, Key any }
	}
	if err != nil || readErr != nil || secretErr != nil || webhook.Verify(secret, r.Header, body, time.Now()) != nil || json.Unmarshal(body, &question) != nil {
		http.Error(w, "who are you?", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if question.Data.Task == "task-1234" && strings.Contains(string(body), fingerprint(s.keys["alice"])) {
		io.WriteString(w, s.answer)
		return
	}
	io.WriteString(w, `{"allow": false}`)
}
