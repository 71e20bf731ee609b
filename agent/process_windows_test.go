package agent

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// shown is output as it comes.
type shown struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{}
}

func newShown() *shown { return &shown{more: make(chan struct{}, 1)} }

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.b.Write(p)
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// await waits until a text was shown.
func (s *shown) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("not shown: %q, but %q", text, s)
		}
	}
}

// TestMain lets the test be a program that copies its input to its output.
func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_COPY") != "" {
		io.Copy(os.Stdout, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// run runs a command of cmd.exe to its end, with an input.
func run(t *testing.T, c command, text, input string) (stdout, stderr string, e exit) {
	t.Helper()
	c.path = loginShell()
	c.args = []string{"cmd.exe", "-c", text}
	if c.dir == "" {
		c.dir = t.TempDir()
	}
	if c.env == nil {
		c.env = os.Environ()
	}
	p, err := startProcess(c)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(p, input)
		p.closeInput()
	}()
	out, errs := newShown(), newShown()
	if err := p.attach(out, errs, nil); err != nil {
		t.Error(err)
	}
	return out.String(), errs.String(), p.release()
}

func TestCommand(t *testing.T) {
	stdout, stderr, e := run(t, command{}, `echo "a  b" & echo aside 1>&2 & exit 300`, "")
	if stdout != "\"a  b\" \r\n" || strings.TrimSpace(stderr) != "aside" || e != (exit{status: 300}) {
		t.Errorf("%q, %q, %v", stdout, stderr, e)
	}
}

// What reads its input to the end gets that end, and its output comes after.
func TestCommandReadsItsInput(t *testing.T) {
	env := append(os.Environ(), "AGENT_TEST_COPY=yes")
	stdout, stderr, e := run(t, command{env: env}, `"`+os.Args[0]+`" & exit 3`, "abc\r\nxyz\n")
	if stdout != "abc\r\nxyz\n" || stderr != "" || e.status != 3 {
		t.Errorf("%q, %q, %v", stdout, stderr, e)
	}
}

func TestCommandHasItsSurroundings(t *testing.T) {
	dir := t.TempDir()
	env := environ(append(os.Environ(), "Fruit=apple"))
	env.set("FRUIT", "pear")
	stdout, _, _ := run(t, command{dir: dir, env: env}, `cd& echo %fruit%`, "")
	if want := dir + "\r\npear\r\n"; !strings.EqualFold(stdout, want) {
		t.Errorf("%q, not %q", stdout, want)
	}
}

func TestPathKeepsItsCase(t *testing.T) {
	env := environ{`Path=C:\tools`}
	env.setDefault("PATH", defaultPath)
	if env.get("PATH") != `C:\tools` || len(env) != 1 {
		t.Errorf("%q", env)
	}
	g := guestEnv{patterns: []string{"*"}, variables: 9, bytes: 999}
	if g.set("Path", ".") || g.set("ComSpec", "evil.exe") || !g.set("fruit", "apple") {
		t.Error("a guest may set what no guest may, or not what it may")
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	p, err := startProcess(command{path: `C:\nowhere\program.exe`, args: []string{"program"}, dir: t.TempDir(), env: os.Environ()})
	if err == nil || !strings.Contains(err.Error(), "program.exe") {
		t.Errorf("%v, %v", p, err)
	}
}

// A guest who goes takes with it what the command has started, and what that has.
func TestHangupEndsTheTree(t *testing.T) {
	dir := t.TempDir()
	c := command{path: loginShell(), dir: dir, env: os.Environ()}
	c.args = []string{"cmd.exe", "-c", `cmd /c "echo started & ping -n 600 127.0.0.1 >nul"`}
	p, err := startProcess(c)
	if err != nil {
		t.Fatal(err)
	}
	out, gone, lost := newShown(), make(chan struct{}), make(chan error)
	go func() { lost <- p.attach(out, io.Discard, gone) }()
	out.await(t, "started")
	if a, err := p.job.account(); err != nil || a.activeProcesses < 2 {
		t.Errorf("%v, %v", a, err)
	}
	close(gone)
	if err := <-lost; err != errViewLost {
		t.Error(err)
	}
	p.hangup(time.Millisecond)
	if a, err := p.job.account(); err != nil || a.activeProcesses != 0 {
		t.Errorf("left: %v, %v", a, err)
	}
	if e := p.release(); e.status != 137 {
		t.Error(e)
	}
	if err := p.signal("KILL"); err != windows.ERROR_INVALID_HANDLE {
		t.Error(err)
	}
}

func TestTermEndsTheTree(t *testing.T) {
	p, err := startProcess(command{path: loginShell(), args: []string{"cmd.exe"}, dir: t.TempDir(), env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.signal("TERM"); err != nil {
		t.Error(err)
	}
	if err := p.attach(io.Discard, io.Discard, nil); err != nil {
		t.Error(err)
	}
	if e := p.release(); e.shellStatus() != 143 {
		t.Error(e)
	}
}

func TestNoTerminal(t *testing.T) {
	if term, err := openTerminal(winsize{Columns: 80, Rows: 24}, nil); term != nil || err != errNoTerminal {
		t.Errorf("%v, %v", term, err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		path string
		args []string
		want string
	}{
		{`C:\Windows\system32\cmd.exe`, []string{"cmd.exe", "-c", `dir "C:\a b" & exit 1`}, `C:\Windows\system32\cmd.exe /d /s /c "dir "C:\a b" & exit 1"`},
		{`C:\Windows\system32\cmd.exe`, []string{"cmd.exe"}, `cmd.exe`},
		{`C:\Program Files\PowerShell\7\pwsh.exe`, []string{"pwsh.exe", "-c", `echo "a b"`}, `pwsh.exe -c "echo \"a b\""`},
	} {
		if got := commandLine(c.path, c.args); got != c.want {
			t.Errorf("%s: not %s", got, c.want)
		}
	}
}

func TestLookPath(t *testing.T) {
	shell := loginShell()
	if !isExecutable(shell) || !isExecutable("cmd") || isExecutable(t.TempDir()) {
		t.Error("what is a program is not, or the other way round")
	}
	if got := lookPath("cmd", filepath.Dir(shell), ""); !strings.EqualFold(got, strings.TrimSuffix(shell, filepath.Ext(shell))) {
		t.Error(got)
	}
}
