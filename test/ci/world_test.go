package ci_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A world is a gateway that hands out agents, with a CI system that signs tokens
// and a forge where alice has an account.
type world struct {
	t       *testing.T
	dir     string
	gateway string // as snippets name it
	program string
	ssh     string
	issuer  *testenv.Issuer
	forge   *testenv.Forge
	alice   testenv.Key
}

const worldConfig = `
domain: localhost
state_dir: state
ca_file: partners.pem
ssh: {listen: "127.0.0.1:0"}
https: {listen: "127.0.0.1:0", certificate: cert.pem, key: key.pem, agents: %[3]q}
private: {listen: "off", admin_socket: "off"}
guests: {authorized_keys: [alice.pub]}
forges:
  - {name: github, kind: github, url: %[2]q}
  - {name: 127.0.0.1, kind: github, url: %[2]q}
hosts:
  issuers:
    - {profile: github, issuer: %[1]s/github, require: {repository_owner_id: ["123456"]}}
    - {profile: gitlab, url: %[1]s/gitlab, require: {namespace_id: ["7"]}}
    - {profile: buildkite, issuer: %[1]s/buildkite, require: {organization_id: [acme]}}
    - {profile: circleci, url: acme, issuer: %[1]s/circleci}
    - {profile: generic, url: "%[1]s/cirrus", require: {owner: [acme]}, task: "cirrus-{task_id}"}
`

func newWorld(t *testing.T) *world {
	t.Helper()
	dist := distribution(t)
	w := &world{t: t, dir: t.TempDir(), program: filepath.Join(dist, "stagedoor_"+strings.ReplaceAll(platform, "/", "_")), issuer: testenv.NewIssuer(t), forge: testenv.NewForge(t)}
	cert, _ := testenv.Certificate(t)
	testenv.WriteCertificate(t, w.dir, cert)
	// All servers of httptest have the same certificate.
	w.write("partners.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.forge.Certificate().Raw})))
	w.alice = testenv.NewKey(t, w.dir, "alice")
	w.forge.Set(583231, "alice", w.alice.Line)
	config := w.write("gateway.yaml", fmt.Sprintf(worldConfig, w.issuer.URL, w.forge.URL, dist))
	p := testenv.StartProcess(t, nil, w.program, "gateway", "--config", config, "--log-format", "json")
	p.WaitFor("gateway ready")
	w.gateway = "localhost:" + portOf(t, "https", p.Output.String())
	w.ssh = "localhost:" + portOf(t, "ssh", p.Output.String())
	return w
}

func portOf(t *testing.T, listener, log string) string {
	t.Helper()
	m := regexp.MustCompile(`"listener":"` + listener + `","address":"127.0.0.1:(\d+)"`).FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("no listener %s in %s", listener, log)
	}
	return m[1]
}

func (w *world) write(name, content string) string {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// token mints a token for a task.
func (w *world) token(task string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), w.program, "token", "--config", filepath.Join(w.dir, "gateway.yaml"), "--task", task, "--authorized-keys", w.alice.File+".pub")
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%v: mint a token", err)
	}
	return strings.TrimSpace(string(out))
}

// A job is a command of a CI job, in a work tree of its own.
type job struct {
	w      *world
	t      *testing.T
	dir    string // its work tree
	cmd    *exec.Cmd
	output testenv.Output
	done   chan struct{}
}

// job prepares a job in a clean environment that trusts the gateway and the CI
// system as a machine of theirs would.
func (w *world) job(t *testing.T, env ...string) *job {
	t.Helper()
	j := &job{w: w, t: t, dir: t.TempDir(), done: make(chan struct{})}
	home := t.TempDir()
	cert := filepath.Join(w.dir, "cert.pem")
	common := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + shortTempDir(t), "CI=true",
		"CURL_CA_BUNDLE=" + cert, "NODE_EXTRA_CA_CERTS=" + cert, "STAGEDOOR_CA_FILE=" + cert,
		"SSL_CERT_FILE=" + filepath.Join(w.dir, "partners.pem"), "STAGEDOOR_FORGE=github=github@" + w.forge.URL,
	}
	j.cmd = &exec.Cmd{Env: append(common, env...), Dir: j.dir}
	return j
}

// shortTempDir is one whose sockets have names that fit into an address.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs a program. It is killed when the test ends before it.
func (j *job) start(program string, args ...string) {
	j.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, testenv.Need(j.t, program), args...)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = j.cmd.Env, j.cmd.Dir, j.cmd.Stdin, &j.output, &j.output
	j.cmd = cmd
	if err := cmd.Start(); err != nil {
		cancel()
		j.t.Fatal(err)
	}
	go func() {
		defer close(j.done)
		cmd.Wait()
	}()
	j.t.Cleanup(func() {
		cancel()
		<-j.done
		if j.t.Failed() {
			j.t.Logf("%s:\n%s", program, j.output.String())
		}
	})
}

// await returns when the job has printed text.
func (j *job) await(text string) {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), testenv.Patience)
	defer cancel()
	if !j.output.Wait(ctx, func(s string) bool { return strings.Contains(s, text) }, j.done) {
		j.t.Fatalf("it did not print %q but:\n%s", text, j.output.String())
	}
}

// ends returns the status that the job ends with.
func (j *job) ends() int {
	<-j.done
	return j.cmd.ProcessState.ExitCode()
}

// enter runs a command in a task, as alice does.
func (w *world) enter(t *testing.T, task, command string) string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(w.dir, "state", "ssh_host_ed25519_key"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(w.ssh)
	if err != nil {
		t.Fatal(err)
	}
	args := append(testenv.SSHOptions(t, t.TempDir(), w.ssh, host.PublicKey(), w.alice), "-p", port, task+"@localhost", command)
	out, err := exec.CommandContext(t.Context(), testenv.Need(t, "ssh"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh %s %s: %v: %s", task, command, err, out)
	}
	return string(out)
}

// isHeld waits until the job is held under a task, looks around as a person would,
// lets it go, and returns where that was and with which status the job ended.
func (j *job) isHeld(task string) (seen string, status int) {
	j.t.Helper()
	j.await(" " + task + "@localhost")
	seen = j.w.enter(j.t, task, `pwd; echo "MARK=$MARK"; env | grep -c ^STAGEDOOR_TOKEN; true`)
	j.w.enter(j.t, task, "stagedoor resume")
	return seen, j.ends()
}

// sees is what a guest has to see: the directory and the environment of the job,
// without its token.
func sees(dir, mark string) string { return dir + "\nMARK=" + mark + "\n0\n" }

// tls trusts the gateway.
func (w *world) tls() *tls.Config {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "cert.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: roots}
}
