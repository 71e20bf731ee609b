package gateway_test

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A distribution is a directory as make dist writes it, whose agent is a script
// that says how it was called.
type distribution struct {
	*world
	agents string
	agent  string // the file for this machine
}

const pretended = "#!/bin/sh\n[ \"$1\" != version ] || exit 0\necho \"gateway=$STAGEDOOR_GATEWAY\"\nfor a; do echo \"[$a]\"; done\nexit 7\n"

func newDistribution(t *testing.T) *distribution {
	t.Helper()
	d := &distribution{agents: t.TempDir(), agent: "stagedoor-agent_" + runtime.GOOS + "_" + runtime.GOARCH}
	d.write(t, "stagedoor_linux_amd64", "the gateway's own program")
	d.write(t, "stagedoor-agent_plan9_amd64", strings.Repeat("an agent ", 1000))
	d.write(t, d.agent, pretended)
	d.sums(t)
	agents, err := gateway.OpenAgents(d.agents)
	if err != nil {
		t.Fatal(err)
	}
	d.world = newWorld(t, func(s *gateway.Settings) { s.Agents = agents })
	d.settings.HTTPSAddress = d.https
	if err := d.server.Reload(d.settings); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *distribution) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.agents, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sums writes SHA256SUMS for what is there.
func (d *distribution) sums(t *testing.T) {
	t.Helper()
	os.Remove(filepath.Join(d.agents, "SHA256SUMS"))
	files, err := filepath.Glob(filepath.Join(d.agents, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var sums strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), filepath.Base(file))
	}
	d.write(t, "SHA256SUMS", sums.String())
}

func (d *distribution) get(path string, header ...string) (*http.Response, string) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), "GET", "https://"+d.https+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	resp, err := d.httpClient().Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, string(body)
}

// job is a shell in an environment of its own, whose HOME is new and whose curl
// and wget trust the gateway.
func (d *distribution) job(shell string, env ...string) *exec.Cmd {
	d.t.Helper()
	home := d.t.TempDir()
	resp, err := d.httpClient().Get("https://" + d.https + "/")
	if err != nil {
		d.t.Fatal(err)
	}
	resp.Body.Close()
	ca := filepath.Join(home, "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: resp.TLS.PeerCertificates[0].Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "wgetrc"), []byte("ca_certificate = "+ca+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
	args := strings.Fields(shell)
	cmd := exec.CommandContext(d.t.Context(), testenv.Need(d.t, args[0]), args[1:]...)
	cmd.Dir = home
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CURL_CA_BUNDLE=" + ca, "WGETRC=" + home + "/wgetrc"}, env...)
	return cmd
}

// only returns a PATH with nothing but these programs.
func only(t *testing.T, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, program := range programs {
		if err := os.Symlink(testenv.Need(t, program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func run(t *testing.T, cmd *exec.Cmd, script string) (stdout, stderr string, status int) {
	t.Helper()
	var out, err strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatal(e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

var shells = []string{"dash", "bash", "bash --posix", "busybox sh"}

// TestInstall: one line runs the agent with its arguments, whatever the shell, and
// finds it again the next time.
func TestInstall(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	line := "curl -fsSL https://" + d.https + "/install | $SHELL_UNDER_TEST -s -- run -- 'make  test' ''"
	for _, shell := range shells {
		cmd := d.job(shell, "SHELL_UNDER_TEST="+shell)
		stdout, stderr, status := run(t, cmd, line)
		if want := "gateway=" + d.https + "\n[run]\n[--]\n[make  test]\n[]\n"; stdout != want || stderr != "" || status != 7 {
			t.Errorf("%s: status %d, %q %q, want %q", shell, status, stdout, stderr, want)
		}
		kept, _ := filepath.Glob(filepath.Join(cmd.Dir, ".cache/stagedoor/*/*"))
		if len(kept) != 1 || filepath.Base(kept[0]) != "stagedoor-agent" {
			t.Fatalf("%s: %q is left", shell, kept)
		}
		before, err := os.Stat(kept[0])
		if err != nil {
			t.Fatal(err)
		}
		_, script := d.get("/install")
		again := d.job(shell+" -s", "STAGEDOOR_GATEWAY=another.example.com")
		again.Env = append(again.Env, "HOME="+cmd.Dir)
		if stdout, _, _ := run(t, again, script); stdout != kept[0]+"\n" {
			t.Errorf("%s: without arguments it prints %q, want %s", shell, stdout, kept[0])
		}
		if after, err := os.Stat(kept[0]); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: it was downloaded again: %v", shell, err)
		}
	}
}

// TestInstallElsewhere is what a job may ask for, and may lack.
func TestInstallElsewhere(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	_, script := d.get("/install")
	tools := []string{"sh", "uname", "mkdir", "chmod", "mv", "rm", "mktemp", "sleep"}
	for name, c := range map[string]struct {
		env  []string
		want string // of the path that is printed
	}{
		"a given directory":      {[]string{"STAGEDOOR_INSTALL_DIR=in/there"}, "in/there/stagedoor-agent"},
		"no home":                {[]string{"HOME=", "TMPDIR=" + t.TempDir()}, "/tmp."},
		"a home that is no home": {[]string{"HOME=/dev/null", "TMPDIR=" + t.TempDir()}, "/tmp."},
		"wget":                   {[]string{"PATH=" + only(t, append(tools, "wget", "sha256sum")...)}, "/stagedoor-agent"},
		"shasum":                 {[]string{"PATH=" + only(t, append(tools, "curl", "shasum", "perl")...)}, "/stagedoor-agent"},
		"openssl":                {[]string{"PATH=" + only(t, append(tools, "curl", "openssl")...)}, "/stagedoor-agent"},
		"another gateway":        {[]string{"STAGEDOOR_GATEWAY=x.example.com"}, "/stagedoor-agent"},
	} {
		stdout, stderr, status := run(t, d.job("sh -s", c.env...), script)
		if status != 0 || stderr != "" || !strings.Contains(stdout, c.want) {
			t.Errorf("%s: status %d, %q %q, want %q", name, status, stdout, stderr, c.want)
		}
	}
	stdout, _, _ := run(t, d.job("sh -s -- connect", "STAGEDOOR_GATEWAY_FILE=/run/gateway"), script)
	if stdout != "gateway=\n[connect]\n" {
		t.Errorf("a gateway of the job's own is replaced: %q", stdout)
	}
}

// TestInstallGoesOn: a download that is interrupted goes on where it was, so what
// the first part was shows in the whole.
func TestInstallGoesOn(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	_, script := d.get("/install")
	for _, program := range []string{"curl", "wget"} {
		for first, want := range map[string]string{pretended[:10]: "/stagedoor-agent\n", "something!": "not what the gateway announced"} {
			dir := only(t, "sh", "uname", "mkdir", "chmod", "mv", "rm", "sha256sum")
			// The first time it fetches ten bytes, the second time it is itself.
			flaky := fmt.Sprintf("#!/bin/sh\n[ ! -e %[1]s ] || exec %[2]s \"$@\"\n: >%[1]s\nfor a; do case $before in -o|-O) part=$a ;; esac; before=$a; done\nprintf %%s %[3]s >\"$part\"\nexit 18\n",
				filepath.Join(dir, "called"), testenv.Need(t, program), "'"+first+"'")
			for name, text := range map[string]string{program: flaky, "sleep": "#!/bin/sh\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			stdout, stderr, _ := run(t, d.job("sh -s", "PATH="+dir), script)
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s after %q: %q %q, want %q", program, first, stdout, stderr, want)
			}
		}
	}
}

// TestInstallFails in words, leaves nothing, and runs the command that was to be
// run: it is not what failed.
func TestInstallFails(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	_, script := d.get("/install")
	still := t.TempDir()
	for name, text := range map[string]string{"sleep": "#!/bin/sh\n", "uname": "#!/bin/sh\n[ -z \"$UNAME\" ] || { echo \"$UNAME\"; exit; }\nexec /bin/uname \"$@\"\n"} {
		if err := os.WriteFile(filepath.Join(still, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := "PATH=" + still + ":" + os.Getenv("PATH")
	d.write(t, d.agent, pretended+"# changed\n")
	for want, env := range map[string][]string{
		"no agent for OpenBSD":                            {"UNAME=OpenBSD"},
		"not what the gateway announced: its SHA-256 is ": {},
		"neither curl nor wget":                           {"PATH=" + only(t, "uname", "mkdir", "rm") + ":" + still},
		"cannot create directory":                         {"STAGEDOOR_INSTALL_DIR=/dev/null/there"},
	} {
		cmd := d.job("/bin/sh -s -- connect", append([]string{path}, env...)...)
		stdout, stderr, status := run(t, cmd, script)
		left, _ := filepath.Glob(filepath.Join(cmd.Dir, ".cache/stagedoor/*/.*agent*"))
		if status != 1 || stdout != "" || !strings.Contains(stderr, want) || len(left) > 0 {
			t.Errorf("status %d, %q %q, %q is left, want %q", status, stdout, stderr, left, want)
		}
	}
	stdout, stderr, status := run(t, d.job("/bin/sh -s -- run --on failure -- sh -c", path), script)
	if status == 0 || stdout != "" || !strings.Contains(stderr, "running the command without it") {
		t.Errorf("status %d, %q %q", status, stdout, stderr)
	}
	cmd := d.job("/bin/sh", path)
	cmd.Args = append(cmd.Args, "-s", "--", "run", "--", "sh", "-c", "echo ran; exit 9")
	if stdout, _, status := run(t, cmd, script); stdout != "ran\n" || status != 9 {
		t.Errorf("status %d, %q: the command was not run", status, stdout)
	}
	if err := os.Remove(filepath.Join(d.agents, d.agent)); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := run(t, d.job("/bin/sh -s -- connect", path), script); status != 1 || !strings.Contains(stderr, "cannot be downloaded") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// TestInstallIsWholeOrNothing: wherever the script is cut off, nothing of it runs,
// and the shell says that something is wrong.
func TestInstallIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	_, script := d.get("/install")
	script = strings.TrimSuffix(script, "\n")
	cuts := []int{}
	for i := range script {
		if i > 0 && (i < 40 || script[i-1] == '\n' || i > len(script)-40) {
			cuts = append(cuts, i)
		}
	}
	for i, cut := range cuts {
		cmd := d.shell(t, shells[i%len(shells)])
		if stdout, _, status := run(t, cmd, script[:cut]); status == 0 || stdout != "" {
			t.Errorf("%s, cut after %q: status %d, %q", cmd.Path, script[max(0, cut-20):cut], status, stdout)
		}
	}
	if home, err := os.ReadDir(d.dir); err != nil || len(home) > 0 {
		t.Errorf("%v: %v is left", err, home)
	}
}

// shell is job without a way to the gateway.
func (d *distribution) shell(t *testing.T, shell string) *exec.Cmd {
	t.Helper()
	args := strings.Fields(shell + " -s -- run -- true")
	cmd := exec.CommandContext(t.Context(), testenv.Need(t, args[0]), args[1:]...)
	cmd.Dir, cmd.Env = d.dir, []string{"PATH=/nonexistent", "HOME=" + d.dir}
	return cmd
}

// TestPagesNameTheConfiguredGateway, whatever a request calls it.
func TestPagesNameTheConfiguredGateway(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	for _, path := range []string{"/", "/install", "/agents/SHA256SUMS", "/nothing"} {
		for _, accept := range []string{"text/html", "*/*"} {
			_, body := d.get(path, "Host", "evil.example.com:1;$(id)", "Accept", accept, "X-Forwarded-Host", "evil.example.com", "Forwarded", "host=evil.example.com")
			if strings.Contains(body, "evil") || strings.Contains(body, "$(id)") {
				t.Errorf("%s: the request chose a name:\n%s", path, body)
			}
		}
	}
	if _, script := d.get("/install"); !strings.Contains(script, "https://"+d.https+"/agents/") {
		t.Errorf("the script does not name the gateway:\n%s", script)
	}
	for address, want := range map[string]string{
		"terminal.example.com:443": "https://terminal.example.com/agents/",
		"[2001:db8::1]:443":        "https://[2001:db8::1]/agents/",
		"[2001:db8::1]:8443":       "https://[2001:db8::1]:8443/agents/",
	} {
		d.settings.HTTPSAddress = address
		if err := d.server.Reload(d.settings); err != nil {
			t.Fatal(err)
		}
		if _, script := d.get("/install"); !strings.Contains(script, want) {
			t.Errorf("%s: no %s in the script", address, want)
		}
	}
}

// TestAgentsAreHandedOut, and nothing else of the directory or the disk.
func TestAgentsAreHandedOut(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	resp, body := d.get("/agents/" + d.agent)
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(pretended)))
	if resp.StatusCode != 200 || body != pretended || resp.Header.Get("ETag") != `"`+sum+`"` || resp.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%s %v: %q", resp.Status, resp.Header, body)
	}
	if resp, body := d.get("/agents/"+d.agent, "If-None-Match", `"`+sum+`"`); resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("%s: %q", resp.Status, body)
	}
	if resp, body := d.get("/agents/"+d.agent, "Range", "bytes=10-19"); resp.StatusCode != http.StatusPartialContent || body != pretended[10:20] {
		t.Errorf("%s: %q", resp.Status, body)
	}
	if _, body := d.get("/agents/SHA256SUMS"); !strings.Contains(body, sum+"  "+d.agent+"\n") || strings.Contains(body, "stagedoor_linux") {
		t.Errorf("%q", body)
	}
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(d.agents, "stagedoor-agent_linux_mips")); err != nil {
		t.Fatal(err)
	}
	d.sums(t)
	for _, path := range []string{"stagedoor_linux_amd64", "stagedoor-agent_linux_mips", "stagedoor-agent_linux_riscv64", "../SHA256SUMS", "..%2f..%2fetc%2fpasswd", "%2e%2e/", "", ".", "SHA256SUMS/x"} {
		if resp, body := d.get("/agents/" + path); resp.StatusCode != http.StatusNotFound || strings.Contains(body, "secret") || strings.Contains(body, "own program") {
			t.Errorf("%q: %s: %s", path, resp.Status, body)
		}
	}
}

// TestAnotherVersionTakesItsPlace without a word to the gateway.
func TestAnotherVersionTakesItsPlace(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	d.write(t, d.agent, "another")
	d.sums(t)
	if _, body := d.get("/agents/" + d.agent); body != "another" {
		t.Errorf("%q", body)
	}
	if _, script := d.get("/install"); !strings.Contains(script, fmt.Sprintf("%x", sha256.Sum256([]byte("another")))) {
		t.Error("the script has the sum of the version before")
	}
}

// TestNoAgents: whoever looks learns what the operator has to do.
func TestNoAgents(t *testing.T) {
	t.Parallel()
	d := &distribution{world: newWorld(t, func(s *gateway.Settings) { s.HTTPSAddress = "terminal.example.com:443" })}
	for _, path := range []string{"/install", "/agents/SHA256SUMS", "/agents/stagedoor-agent_linux_amd64"} {
		resp, body := d.get(path)
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "make dist") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %s %v: %s", path, resp.Status, resp.Header, body)
		}
	}
}

func TestOpenAgents(t *testing.T) {
	t.Parallel()
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("x")))
	for want, files := range map[string]map[string]string{
		"":                   {"SHA256SUMS": sum + " *stagedoor-agent_linux_amd64\nnonsense\n\n", "stagedoor-agent_linux_amd64": "x"},
		"there is no SHA256": {"stagedoor-agent_linux_amd64": "x"},
		"lists no stagedoor": {"SHA256SUMS": sum + "  stagedoor_linux_amd64\nabc  stagedoor-agent_linux_amd64\n" + sum + "  ../stagedoor-agent_linux_amd64\n"},
		"no such file":       {"SHA256SUMS": sum + "  stagedoor-agent_linux_amd64\n"},
		"is not what":        {"SHA256SUMS": sum + "  stagedoor-agent_linux_amd64\n", "stagedoor-agent_linux_amd64": "y"},
	} {
		dir := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := gateway.OpenAgents(dir)
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%q: %v, want %q", slices.Sorted(maps.Keys(files)), err, want)
		}
	}
	if _, err := gateway.OpenAgents(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that does not exist was opened")
	}
}
