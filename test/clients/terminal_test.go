package clients

import (
	"context"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// hasTerminal gives the client a terminal of its own, types into the shell that
// it opens, and changes the window.
func hasTerminal(shell func(t *testing.T, g *guest) *exec.Cmd) check {
	return func(t *testing.T, g *guest) {
		s := newScreen(t, shell(t, g))
		s.waitFor(" ") // the end of the prompt: a driver may drop what is typed before
		// What is typed is echoed, so it must not look like its output.
		s.typeLine(`stty -echo; tty; echo "si""ze $(stty size) $TERM"`)
		s.waitFor("/dev/pts/")
		s.waitFor("size 24 80 xterm")
		s.resize(43, 132)
		s.typeLine(`until [ "$(stty size)" = "43 132" ]; do sleep 0.05; done; echo "ch""anged"; read -r line; echo "<$line>"; exit 7`)
		s.waitFor("changed")
		s.typeLine("grüße")
		s.waitFor("<grüße>")
		if err := s.cmd.Wait(); exitCode(err) != 7 {
			t.Errorf("%v, want exit status 7", err)
		}
	}
}

// screen is a terminal that a client runs in.
type screen struct {
	t      *testing.T
	cmd    *exec.Cmd
	pty    io.ReadWriter
	resize func(rows, columns uint16)
	shown  testenv.Output
	done   chan struct{} // closed when nobody holds the terminal any more
}

func newScreen(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	master, slave, err := pty.Open()
	mustDo(t, err)
	s := &screen{t: t, cmd: cmd, pty: master, done: make(chan struct{})}
	s.resize = func(rows, columns uint16) {
		t.Helper()
		mustDo(t, pty.Setsize(master, &pty.Winsize{Rows: rows, Cols: columns}))
	}
	s.resize(24, 80)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // its terminal is its stdin
	start(t, cmd)
	slave.Close()
	go func() {
		defer close(s.done)
		io.Copy(&s.shown, master)
	}()
	t.Cleanup(func() {
		master.Close()
		<-s.done
		if t.Failed() {
			t.Logf("the screen:\n%s", tail(s.shown.String()))
		}
	})
	return s
}

func (s *screen) typeLine(line string) {
	s.t.Helper()
	_, err := io.WriteString(s.pty, line+"\r")
	mustDo(s.t, err)
}

func (s *screen) waitFor(text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), testenv.Patience)
	defer cancel()
	if !s.shown.Wait(ctx, func(shown string) bool { return strings.Contains(shown, text) }, s.done) {
		s.t.Fatalf("the screen does not show %q", text)
	}
}
