package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// A runner is a client's command line that runs a command on the host.
type runner func(t *testing.T, g *guest, command string) *exec.Cmd

// A copier is a client's command line that copies a file. One of the paths is the
// host's.
type copier func(t *testing.T, g *guest, from, to string) *exec.Cmd

// signsIn runs a command with a key of the given kind.
func signsIn(kind string, run runner) check {
	return func(t *testing.T, g *guest) {
		g.kind = kind
		if got := mustRun(t, run(t, g, "echo in")); !strings.Contains(got, "in\n") {
			t.Errorf("the command printed %q", got)
		}
	}
}

// checksHostKey shows the client a gateway with another key than the guest knows:
// it fails, and nothing runs.
func checksHostKey(run runner) check {
	return func(t *testing.T, g *guest) {
		g.know(t, g.address, testenv.Signer(t).PublicKey())
		trace := filepath.Join(g.remote, "trace")
		out, err := run(t, g, "touch "+g.remotePath("trace")).CombinedOutput()
		if err == nil {
			t.Errorf("it goes on; output:\n%s", out)
		}
		if _, err := os.Stat(trace); err == nil {
			t.Error("its command ran")
		}
	}
}

// runsCommands looks at exit statuses and at the two streams of output.
func runsCommands(run runner) check {
	return func(t *testing.T, g *guest) {
		want := randomBytes(300_000)
		mustDo(t, os.WriteFile(filepath.Join(g.remote, "binary"), want, 0o600))
		cmd := run(t, g, "cat "+g.remotePath("binary")+"; echo to stderr >&2; exit 37")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); exitCode(err) != 37 {
			t.Errorf("%v, want exit status 37", err)
		}
		if !bytes.Equal(stdout.Bytes(), want) {
			t.Errorf("%d bytes of output, want %d, or they differ", stdout.Len(), len(want))
		}
		if !strings.HasSuffix(stderr.String(), "to stderr\n") {
			t.Errorf("stderr: %q", stderr.String())
		}
		mustRun(t, run(t, g, "exit 0"))
	}
}

// passesStdin sends 1 MiB through cat, which ends when its input does.
func passesStdin(run runner) check {
	return func(t *testing.T, g *guest) { throughCat(t, run(t, g, "cat; echo after >&2; exit 5"), 1<<20, 5) }
}

// throughCat sends random bytes to a command that gives them back, and returns
// what it printed to stderr.
func throughCat(t *testing.T, cmd *exec.Cmd, size, status int) string {
	t.Helper()
	input := randomBytes(size)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); exitCode(err) != status {
		t.Errorf("%v, want exit status %d; stderr:\n%s", err, status, tail(stderr.String()))
	}
	if !bytes.Equal(stdout.Bytes(), input) {
		t.Errorf("%d bytes came back of %d, or others", stdout.Len(), len(input))
	}
	return stderr.String()
}

// rekeys sends 8 MiB both ways. What the client tells about its key exchanges must
// be in its stderr at least twice.
func rekeys(run runner, told string) check {
	return func(t *testing.T, g *guest) {
		stderr := throughCat(t, run(t, g, "cat"), 8<<20, 0)
		if n := strings.Count(stderr, told); n < 2 {
			t.Errorf("%d key exchanges, want two or more; stderr:\n%s", n, tail(stderr))
		}
	}
}

// staysIdle lets a session idle until the client has sent four messages through a
// relay, and uses it again. On the quiet gateway they are the client's own doing,
// on the nosy one its answers.
func staysIdle(nosy bool, run runner) check {
	return func(t *testing.T, g *guest) {
		gateway := g.w.gateway
		if nosy {
			gateway = g.w.nosy
		}
		relay := g.relayed(t, gateway)
		cmd := run(t, g, "cat")
		stdin, err := cmd.StdinPipe()
		mustDo(t, err)
		var out testenv.Output
		cmd.Stdout = &out
		start(t, cmd)
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		echo := func(line string) {
			t.Helper()
			io.WriteString(stdin, line+"\n")
			if !out.Wait(ctx, func(s string) bool { return strings.HasSuffix(s, line+"\n") }, nil) {
				t.Fatalf("%q does not come back; output %q", line, out.String())
			}
		}
		echo("before")
		awaitTraffic(ctx, t, relay, 4)
		echo("after")
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client ended with %v", err)
		}
	}
}

// awaitTraffic returns when the client has sent n more messages.
func awaitTraffic(ctx context.Context, t *testing.T, relay *testenv.Relay, n int) {
	t.Helper()
	_, before, _ := relay.Counts()
	for {
		_, sent, changed := relay.Counts()
		if sent-before >= n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("an idle client sent %d messages, want %d", sent-before, n)
		}
	}
}

// copies sends a file to the host and fetches another.
func copies(put, get copier) check {
	return func(t *testing.T, g *guest) {
		uploads(put)(t, g)
		downloads(get)(t, g)
	}
}

const fileSize = 4 << 20

func uploads(put copier) check {
	return func(t *testing.T, g *guest) {
		here, want := g.file(t, g.home, fileSize)
		mustRun(t, put(t, g, here, g.remotePath("sent")))
		if sumOf(t, filepath.Join(g.remote, "sent")) != want {
			t.Error("the file that was sent differs")
		}
	}
}

func downloads(get copier) check {
	return func(t *testing.T, g *guest) {
		there, want := g.file(t, g.remote, fileSize)
		here := filepath.Join(g.home, "came")
		mustRun(t, get(t, g, g.remotePath(filepath.Base(there)), here))
		if sumOf(t, here) != want {
			t.Error("the file that came differs")
		}
	}
}

// file makes a file of random bytes in dir.
func (g *guest) file(t *testing.T, dir string, size int) (path string, sum [32]byte) {
	t.Helper()
	g.files++
	path = filepath.Join(dir, "file"+string(rune('0'+g.files)))
	data := randomBytes(size)
	mustDo(t, os.WriteFile(path, data, 0o644))
	return path, sha256.Sum256(data)
}

// endToEnd runs a command on the agent's own SSH server, which says where the
// connection came from: the guest's address as the gateway told it.
// With another key for the agent nothing runs.
func endToEnd(run runner) check {
	return func(t *testing.T, g *guest) {
		var stderr bytes.Buffer
		cmd := run(t, g, "echo $STAGEDOOR_TASK; cat; exit 9")
		cmd.Stdin, cmd.Stderr = strings.NewReader("by hand"), &stderr
		out, err := cmd.Output()
		if exitCode(err) != 9 || string(out) != task+"\nby hand" {
			t.Errorf("%v: output %q, stderr:\n%s", err, out, tail(stderr.String()))
		}
		g.forgetAgent(t)
		if out, err := run(t, g, "touch "+g.remotePath("trace")).CombinedOutput(); err == nil {
			t.Errorf("it takes any host key for the agent's; output:\n%s", out)
		}
		if _, err := os.Stat(filepath.Join(g.remote, "trace")); err == nil {
			t.Error("its command ran on a host whose key is not the agent's")
		}
	}
}

// forgetAgent makes the guest take another key for the agent's.
func (g *guest) forgetAgent(t *testing.T) {
	t.Helper()
	w := *g.w
	w.agentKey = testenv.Signer(t).PublicKey()
	g.w = &w
	g.know(t, g.address, g.hostKey)
}

// start starts a client that is killed at the end of the test, if it has not
// ended.
func start(t *testing.T, cmd *exec.Cmd) *testenv.Output {
	t.Helper()
	var stderr testenv.Output
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	mustDo(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			if cmd.Cancel == nil || cmd.Cancel() != nil {
				cmd.Process.Kill()
			}
			cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s: %v\n%s", cmd, cmd.ProcessState, tail(stderr.String()))
		}
	})
	return &stderr
}

func mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, tail(string(out)), tail(stderr.String()))
	}
	return string(out)
}

// tail is the end of what a client printed, which may be long.
func tail(s string) string {
	const most = 4 << 10
	if len(s) > most {
		return "…" + strings.ToValidUTF8(s[len(s)-most:], "")
	}
	return s
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

func sumOf(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	mustDo(t, err)
	return sha256.Sum256(data)
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
