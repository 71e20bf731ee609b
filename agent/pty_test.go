//go:build linux

package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
)

// screen collects what a terminal shows, and waits for text in it.
type screen struct {
	t    *testing.T
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
	in   io.Writer
}

func newScreen(t *testing.T, out io.Reader, in io.Writer) *screen {
	s := &screen{t: t, in: in, more: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// expect waits for a match and drops what was shown up to its end.
func (s *screen) expect(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for timeout := time.After(patience); ; {
		s.mu.Lock()
		b := s.text.Bytes()
		if m := re.FindSubmatchIndex(b); m != nil {
			var groups []string
			for i := 0; i < len(m); i += 2 {
				groups = append(groups, string(b[m[i]:m[i+1]]))
			}
			s.text.Next(m[1])
			s.mu.Unlock()
			return groups
		}
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-timeout:
			s.t.Fatalf("no %q on the screen: %s", pattern, brief(s.String()))
		}
	}
}

func (s *screen) send(text string) {
	s.t.Helper()
	_, err := io.WriteString(s.in, text)
	must(s.t, err)
}

// terminal runs a client in a terminal of its own, as a person does.
func (h *testHost) terminal(args ...string) (*screen, *os.File, *exec.Cmd) {
	h.t.Helper()
	cmd := h.client("ssh", append([]string{"-tt"}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 101})
	must(h.t, err)
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); f.Close() })
	return newScreen(h.t, f, f), f, cmd
}

func TestShellInATerminal(t *testing.T) {
	h := newTestHost(t, nil)
	s, _, cmd := h.terminal("task")
	s.expect(`[$#] $`)
	s.send("echo $TERM $(tput cols)x$(tput lines) $SSH_TTY $(tty) $PWD\n")
	got := s.expect(`(xterm-256color) (101x33) (/dev/pts/\d+) (/dev/pts/\d+) (/\S+)\r\n`)
	if got[3] != got[4] || got[5] != h.dir {
		t.Errorf("terminal and directory: %q", got)
	}
	s.send("exit 7\n")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("status %d, want 7", cmd.ProcessState.ExitCode())
	}
}

func TestLiveResize(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	s, f, _ := h.terminal("task", onSignals("WINCH", `system("stty size")`))
	s.expect(`ready`)
	for i := range uint16(10) {
		must(t, pty.Setsize(f, &pty.Winsize{Rows: 50 + i, Cols: 132}))
		s.expect(fmt.Sprintf(`%d 132\r\n`, 50+i))
	}
}

// onSignals is a command that says that it is ready, and runs perl code at signals: a shell may miss one while it forks.
func onSignals(names, code string) string {
	return fmt.Sprintf(`exec perl -e '$| = 1; for my $s (qw(%s)) { $SIG{$s} = sub { %s } } print "ready\n"; select(undef, undef, undef, 1) while 1'`, names, code)
}

func TestLoginShell(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.LoginShell = true })
	must(t, os.WriteFile(h.path(".bash_profile"), []byte("echo profile was read\n"), 0o600))
	s, _, _ := h.terminal("task")
	s.expect(`profile was read`)
	s.send("echo name:$0; exit\n")
	s.expect(`name:-bash`)
}

func TestJobControlAndSignals(t *testing.T) {
	h := newTestHost(t, nil)
	s, _, _ := h.terminal("task")
	s.expect(`[$#] $`)
	s.send("echo ready; sleep 1000; echo left:$?\n")
	s.expect(`[\r\n]ready\r\n`)
	s.expectForeground(t, h, "sleep")
	s.send("\x03")
	s.expect(`[$#] $`)
	s.send("echo status:$?\n")
	s.expect(`status:130`)
	s.send("sleep 1000\n")
	s.expectForeground(t, h, "sleep")
	s.send("\x1a")
	s.expect(`Stopped`)
	s.send("jobs; bg; kill %1; wait; echo all:done\n")
	s.expect(`all:done\r\n`)
	s.send("cat\n")
	s.expectForeground(t, h, "cat")
	s.send("\x04")
	s.send("echo after-eof:$?\n")
	s.expect(`after-eof:0`)
	s.send("sleep 1000\n")
	s.expectForeground(t, h, "sleep")
	s.send("\x1c")
	s.expect(`Quit`)
	s.send("exit\n")
}

// expectForeground waits until a program runs in the one session of the host.
func (s *screen) expectForeground(t *testing.T, h *testHost, name string) {
	t.Helper()
	eventually(t, name+" in the foreground", func() bool {
		for _, pid := range h.programs() {
			if strings.HasPrefix(commandOf(pid), name) {
				return true
			}
		}
		return false
	})
}

func TestCtrlCUnderAFlood(t *testing.T) {
	h := newTestHost(t, nil)
	s, _, cmd := h.terminal("task")
	s.expect(`[$#] $`)
	s.send("PS1='pro''mpt> '; yes flood\n")
	s.expect(`flood\r\nflood\r\nflood`)
	s.send("\x03")
	s.expect(`prompt> `)
	s.send("exit 9\n")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("status %d, want 9", cmd.ProcessState.ExitCode())
	}
}

func TestPasteIsIntact(t *testing.T) {
	h := newTestHost(t, nil)
	var lines strings.Builder
	for i := 0; lines.Len() < 64<<10; i++ {
		fmt.Fprintf(&lines, "%05d the quick brown fox jumps over the lazy dog\n", i)
	}
	s, _, cmd := h.terminal("task", "stty raw -echo; echo ready; head -c", fmt.Sprint(lines.Len()), "> pasted; echo copied")
	s.expect(`ready`)
	s.send(lines.String())
	s.expect(`copied`)
	cmd.Wait()
	if h.read("pasted") != lines.String() {
		t.Fatal("raw: the paste was damaged")
	}

	s, _, cmd = h.terminal("task", "cat > lines; echo done")
	s.send(lines.String() + "\x04")
	s.expect(`done\r\n`)
	cmd.Wait()
	if h.read("lines") != lines.String() {
		t.Fatal("line by line: the paste was damaged")
	}
}

func TestModesAreApplied(t *testing.T) {
	h := newTestHost(t, nil)
	modes := ssh.TerminalModes{
		ssh.VINTR: 0x07, ssh.VERASE: 0x08, ssh.VSUSP: 255, ssh.ECHO: 0, ssh.ICANON: 1, ssh.IXON: 0, ssh.IXANY: 1,
		ssh.ONLCR: 0, ssh.TOSTOP: 1, ssh.IUTF8: 1, ssh.CS8: 1, ssh.TTY_OP_ISPEED: 9600, ssh.TTY_OP_OSPEED: 9600,
	}
	c := h.dial()
	out := h.inTerminal(c, modes, "stty -a")
	for _, want := range []string{
		"speed 9600 baud", "rows 24", "columns 80", "intr = ^G;", "erase = ^H;", "susp = <undef>;",
		" -echo ", " icanon ", " -ixon ", " ixany ", "-onlcr", " tostop", " iutf8", " cs8 ", "-parenb",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if out := h.inTerminal(c, ssh.TerminalModes{ssh.OPOST: 0}, "printf '1\\n2'; stty -a"); !strings.HasPrefix(out, "1\n2") || !strings.Contains(out, "-opost") {
		t.Errorf("-OPOST: %s", out)
	}
	// What the person's own terminal is set to arrives through a real client.
	s, f, _ := h.terminal("task", "read x; stty -a")
	must(t, exec.Command("stty", "-F", f.Name(), "sane").Run())
	s.send("\n")
	s.expect(`speed`)
}

func (h *testHost) inTerminal(c *ssh.Client, modes ssh.TerminalModes, command string) string {
	h.t.Helper()
	s, err := c.NewSession()
	must(h.t, err)
	defer s.Close()
	must(h.t, s.RequestPty("vt100", 24, 80, modes))
	out, err := s.CombinedOutput(command)
	must(h.t, err)
	return string(out)
}

func TestOutputBeforeExitIsComplete(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	c := h.dial()
	want := strings.Repeat("0123456789abcde\r\n", 4000) + "last line"
	for range 30 {
		got := h.inTerminal(c, nil, "for i in {1..4000}; do echo 0123456789abcde; done; printf 'last line'")
		if got != want {
			t.Fatalf("%d of %d bytes arrived: …%q", len(got), len(want), got[max(0, len(got)-60):])
		}
	}
	// A program that only background processes outlive: they are not waited for, however much they write.
	if got := h.inTerminal(c, nil, "trap '' HUP; yes & echo $! > yes; exec echo over"); !strings.Contains(got, "over") {
		t.Fatalf("%s", brief(got))
	}
	kill(t, h.pid("yes"))
}

func TestExecInATerminal(t *testing.T) {
	h := newTestHost(t, nil)
	r := h.run(h.client("ssh", "-tt", "task", "echo out; echo err >&2; tty >/dev/null && exit 3"), "")
	if r.stdout != "out\r\nerr\r\n" || r.status != 3 {
		t.Fatalf("%+v", r)
	}
	// A background process in the shell's own group hears SIGHUP when the shell exits; nobody waits for it.
	h.run(h.client("ssh", "-tt", "task", "sleep 1000 & echo $! > pid; echo hi"), "").want(t, "hi\r\n")
	eventually(t, "the end of the background process", func() bool { return !alive(h.pid("pid")) })
}

// A program that closes every descriptor of its terminal may open it again.
func TestTerminalReopened(t *testing.T) {
	h := newTestHost(t, nil)
	out := h.inTerminal(h.dial(), nil, "tty=$(tty); echo one; exec <&- >&- 2>&-; sleep 0.05; echo two >$tty")
	if out != "one\r\ntwo\r\n" {
		t.Fatalf("%q", out)
	}
}

func TestFloodsOfRequests(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	go ssh.DiscardRequests(reqs)
	must(t, request(ch, "pty-req", ptyRequest("xterm", 80, 24, nil)))
	must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"trap 'n=1' USR1; echo ready; while read x && test $x != end; do :; done; stty size"})))
	s := newScreen(t, ch, ch)
	s.expect("ready")
	for i := range uint32(2000) {
		_, err := ch.SendRequest("window-change", i%100 == 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 100+i%7), 40) /* cut short: refused */)
		must(t, err)
		_, err = ch.SendRequest("window-change", false, ssh.Marshal(winsize{Columns: 100 + i%7, Rows: 40}))
		must(t, err)
		_, err = ch.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{"USR1"}))
		must(t, err)
		_, err = ch.SendRequest("break", i%100 == 0, ssh.Marshal(struct{ Length uint32 }{1000}))
		must(t, err)
	}
	_, err = ch.SendRequest("window-change", true, ssh.Marshal(winsize{Columns: 99, Rows: 41}))
	must(t, err)
	if got := statusOf(t, run(t, c, "exit 5")); got != 5 { // the connection still works
		t.Errorf("status %d", got)
	}
	s.send("\nend\n")
	s.expect(`41 99`)
}

func ptyRequest(term string, columns, rows uint32, modes []byte) []byte {
	return ssh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        []byte
	}{term, columns, rows, 0, 0, modes})
}

func request(ch ssh.Channel, name string, payload []byte) error {
	ok, err := ch.SendRequest(name, true, payload)
	if err == nil && !ok {
		err = fmt.Errorf("%s was refused", name)
	}
	return err
}

func TestSignalsAndBreak(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	go ssh.DiscardRequests(reqs)
	if request(ch, "signal", ssh.Marshal(struct{ Name string }{"TERM"})) == nil {
		t.Error("a signal to no program was accepted")
	}
	must(t, request(ch, "pty-req", ptyRequest("xterm", 80, 24, nil)))
	if request(ch, "pty-req", ptyRequest("xterm", 80, 24, nil)) == nil {
		t.Error("a second terminal was accepted")
	}
	must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"stty brkint; " + onSignals("USR1 INT", `print "got $s\n"`)})))
	if request(ch, "shell", nil) == nil {
		t.Error("a second program was accepted")
	}
	s := newScreen(t, ch, ch)
	s.expect("ready")
	must(t, request(ch, "signal", ssh.Marshal(struct{ Name string }{"USR1"})))
	s.expect("got USR1")
	must(t, request(ch, "signal", ssh.Marshal(struct{ Name string }{"INT"})))
	s.expect("got INT")
	must(t, request(ch, "break", ssh.Marshal(struct{ Length uint32 }{500})))
	s.expect("got INT")
	if request(ch, "signal", ssh.Marshal(struct{ Name string }{"BOGUS"})) == nil {
		t.Error("an unknown signal was accepted")
	}
	must(t, request(ch, "signal", ssh.Marshal(struct{ Name string }{"KILL"})))
}
