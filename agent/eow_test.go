//go:build linux

package agent

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// When nobody reads what ssh writes, the program on the host learns of it as it would on the guest's own machine. The same is run
// on a real sshd.
func TestOutputThatNobodyReads(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	port := startSSHD(t, h)
	bash := testenv.Need(t, "bash")
	for _, test := range []struct{ command, first string }{
		{"yes", "y"},
		{"yes; echo $? >&2", "y"},
		{"trap '' PIPE; yes 2>&1; echo $? >&2; exit 3", "y"},
		{"echo x; cat >/dev/null; exit 4", "x"},
		{"echo x; exec >&-; sleep 0.3; echo still >&2; exit 5", "x"},
	} {
		var results []result
		for _, target := range []string{"task", fmt.Sprintf("-o User=%s -p %s task", currentUser(t), port)} {
			// The deadline is against hanging.
			line := fmt.Sprintf("timeout 60 ssh -F %s %s %s </dev/null | head -1; exit ${PIPESTATUS[0]}", h.path("config"), target, quoted(test.command))
			results = append(results, h.run(exec.CommandContext(t.Context(), bash, "-c", line), ""))
		}
		if results[0] != results[1] || results[0].stdout != test.first+"\n" {
			t.Errorf("%s\nagent %+v\nsshd  %+v", test.command, results[0], results[1])
		}
	}
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Standard error goes on, the status is told, and other sessions see nothing of it.
func TestEOWFromTheGuest(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	ch := openSession(t, c)
	if request(ch, "eow@openssh.com", nil) == nil {
		t.Error("no program runs yet")
	}
	s, err := c.NewSession()
	must(t, err)
	stderr, err := s.StderrPipe()
	must(t, err)
	must(t, s.Start("yes 2>/dev/null; echo on stderr >&2; exit 7"))
	for range 3 { // as often as the guest likes
		ok, err := s.SendRequest("eow@openssh.com", true, nil)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if ok, _ := s.SendRequest("eow@openssh.com", true, []byte{0}); ok {
		t.Error("trailing data were accepted")
	}
	said := make([]byte, len("on stderr\n"))
	_, err = stderr.Read(said)
	if string(said) != "on stderr\n" || err != nil {
		t.Errorf("%q %v", said, err)
	}
	if exit, ok := s.Wait().(*ssh.ExitError); !ok || exit.ExitStatus() != 7 {
		t.Errorf("%v", exit)
	}
	// A terminal is none of its business.
	ch = openSession(t, c)
	must(t, request(ch, "pty-req", ptyRequest("xterm", 80, 24, nil)))
	must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"read x; echo seen"})))
	must(t, request(ch, "eow@openssh.com", nil))
	ch.Write([]byte("\n"))
	if out := readAll(t, ch); !strings.Contains(out, "seen") {
		t.Errorf("%q", out)
	}
}
