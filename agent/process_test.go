//go:build linux

package agent

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A program outlives what shows it, and another view may take over.
func TestAnotherViewAttaches(t *testing.T) {
	for name, terminal := range map[string]bool{"terminal": true, "pipes": false} {
		t.Run(name, func(t *testing.T) {
			c := command{path: "/bin/bash", args: []string{"bash", "-c", "while read x; do echo got $x; test $x != end || exit 7; done"}, env: os.Environ(), dir: t.TempDir()}
			if terminal {
				term, err := openTerminal(winsize{80, 24, 0, 0}, []byte{53, 0, 0, 0, 0}) // no echo
				must(t, err)
				c.terminal = term
			}
			p, err := startProcess(c)
			must(t, err)
			for _, word := range []string{"one", "two"} {
				r, w := io.Pipe()
				gone, lost := make(chan struct{}), make(chan error, 1)
				go func() { lost <- p.attach(w, io.Discard, gone); w.Close() }()
				_, err := io.WriteString(p, word+"\n")
				must(t, err)
				newScreen(t, r, nil).expect("got " + word)
				close(gone)
				if err := <-lost; err != errViewLost {
					t.Fatalf("the view went, attach returned %v", err)
				}
			}
			_, err = io.WriteString(p, "end\n")
			must(t, err)
			var last bytes.Buffer
			must(t, p.attach(&last, io.Discard, nil))
			if e := p.release(); !strings.Contains(last.String(), "got end") || e != (exit{status: 7}) {
				t.Errorf("%q, %+v", last.String(), e)
			}
		})
	}
}

// What waits to be sent is gathered, and a single character is not held back.
func TestGather(t *testing.T) {
	term, err := openTerminal(winsize{80, 24, 0, 0}, []byte{70, 0, 0, 0, 0, 53, 0, 0, 0, 0}) // neither OPOST nor ECHO
	must(t, err)
	defer term.close()
	go term.slave.Write([]byte("x"))
	buf := make([]byte, 32<<10)
	if n, err := term.gather(buf); n != 1 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	eventually(t, "more than one read's worth at once", func() bool {
		const size = 12 << 10
		go term.slave.Write(bytes.Repeat([]byte("y"), size))
		most := 0
		for total := 0; total < size; {
			n, err := term.gather(buf)
			must(t, err)
			total, most = total+n, max(most, n)
		}
		return most > 4<<10
	})
}

// Nothing of a hang-up may be waited for longer than the grace, whatever ignores it.
func TestHangupOfAStubbornProgram(t *testing.T) {
	p, err := startProcess(command{path: "/bin/bash", args: []string{"bash", "-c", "trap '' HUP TERM; echo up; while :; do sleep 1000; done"}, env: os.Environ(), dir: "/"})
	must(t, err)
	buf := make([]byte, 3)
	_, err = io.ReadFull(p.stdout, buf)
	must(t, err)
	p.hangup(50 * time.Millisecond)
	if e := p.release(); e.signal != "KILL" {
		t.Errorf("%+v", e)
	}
	if left := p.members(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPanicInACallback(t *testing.T) {
	h := newTestHost(t, func(s *Server) { s.SessionStart = func(SessionInfo) { panic("of the embedder") } })
	h.ssh("", "echo out").want(t, "out\n")
	if !strings.Contains(h.logs.String(), "of the embedder") || !strings.Contains(h.logs.String(), "TestPanicInACallback") {
		t.Error("the log has no stack")
	}
	h.logs.Reset()
	eventually(t, "the end of the session", func() bool { return h.Sessions() == 0 })
}

// Strangers' bytes reach the extender of sftp before the library.
func FuzzSFTP(f *testing.F) {
	packet := func(kind byte, fields any) []byte {
		body := append([]byte{kind}, ssh.Marshal(fields)...)
		return append([]byte{0, 0, 0, byte(len(body))}, body...)
	}
	f.Add(packet(1, struct{ Version uint32 }{3}))
	f.Add(packet(fxpExtended, struct {
		ID   uint32
		Name string
	}{1, "limits@openssh.com"}))
	f.Add(append(packet(fxpOpen, struct {
		ID         uint32
		Name       string
		Flags, Att uint32
	}{1, "file", 1, 0}), packet(fxpExtended, struct {
		ID           uint32
		Name, Handle string
	}{2, "fsync@openssh.com", "1"})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		x := newSFTPExtender(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), &out}, t.TempDir())
		passed, _ := io.ReadAll(x)
		if len(passed) > len(b) {
			t.Fatal("more came out than went in")
		}
		if _, err := x.Write(b); err != nil && err != errSFTPLength {
			t.Fatal(err)
		}
	})
}
