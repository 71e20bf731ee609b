package splice

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// noise returns n bytes, 10 MiB at most, that do not compress and hold every byte
// value. They are the same each time, and nobody's to change.
func noise(n int) []byte { return bulkNoise()[:n:n] }

var bulkNoise = sync.OnceValue(func() []byte {
	b := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// A sshTest is a command that must look the same through a join.
type sshTest struct {
	name    string
	options []string
	command string
	stdin   string // empty: /dev/null
	status  int
	stdout  string
	stderr  string
	unlike  bool // what ssh prints is compared with the direct run only
}

var bulk = string(noise(10 << 20))

var sshTests = []sshTest{
	{name: "output", command: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n"},
	{name: "stdin", command: "cat", stdin: "hello", stdout: "hello"},
	{name: "stdin before a slow start", command: "sleep 0.3; cat", stdin: "hello", stdout: "hello"},
	{name: "half-close", command: "sort", stdin: "b\nc\na\n", stdout: "a\nb\nc\n"},
	{name: "half-close then status", command: "sort; exit 3", stdin: "b\na\n", status: 3, stdout: "a\nb\n"},
	{name: "no stdin", options: []string{"-n"}, command: "cat; echo done", stdout: "done\n"},
	{name: "stdin not read", command: "exit 4", stdin: bulk, status: 4},
	{name: "stdin read in part", command: "head -c 10; exit 5", stdin: bulk, status: 5, stdout: bulk[:10]},
	{name: "bulk both ways", command: "cat", stdin: bulk[:6<<20], stdout: bulk[:6<<20]},
	{name: "bulk to stderr", command: "cat >&2", stdin: bulk[:1<<20], stderr: bulk[:1<<20]},
	{name: "bulk up", command: "wc -c; exit 6", stdin: bulk, status: 6, stdout: fmt.Sprintln(len(bulk))},
	{name: "bulk at the end", command: `head -c 3000000 /dev/zero | tr '\0' x; exit 7`, status: 7, stdout: strings.Repeat("x", 3000000)},
	{name: "signal", command: "echo a; kill -TERM $$", status: 255, stdout: "a\n", unlike: true},
	{name: "kill", command: "kill -KILL $$", status: 255, unlike: true},
	{name: "stdout closed early", command: "exec >&-; sleep 0.2; exit 8", status: 8},
	{name: "both closed early", command: "exec >&- 2>&-; sleep 0.2; exit 9", status: 9},
	{name: "all closed early", command: "exec <&- >&- 2>&-; sleep 0.2; exit 10", status: 10},
	{name: "background holder", command: "(sleep 0.5; echo late) & echo early; exit 11", status: 11, stdout: "early\nlate\n"},
	{name: "silent background holder", command: "sleep 2 & exit 12", status: 12},
	{name: "late background holder", command: "(sleep 2; echo late) & exit 12", status: 12, stdout: "late\n"},
	{name: "background without stdout", command: "sleep 20 >/dev/null 2>&1 </dev/null & exit 13", status: 13},
	{name: "long command", command: "printf %s " + strings.Repeat("x", 100_000) + " | wc -c", stdout: "100000\n"},
	{name: "environment", options: []string{"-o", "SetEnv=STAGE_A=1 STAGE_B=2"}, command: "echo $STAGE_A$STAGE_B", stdout: "12\n"},
	{name: "unknown subsystem", options: []string{"-s"}, command: "nonsense", status: 255, unlike: true},
	{name: "shell", stdin: "echo $((40+2)); exit 14\n", status: 14, unlike: true},
	{name: "pty", options: []string{"-tt"}, command: "stty -opost; tty >/dev/null && echo yes; exit 15", status: 15, stdout: "yes\n"},
	{name: "pty with stdin", options: []string{"-tt"}, command: "stty -echo -opost; read x; echo got $x; exit 16", stdin: "word\n", status: 16, unlike: true},
	{name: "keepalives", options: []string{"-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"}, command: "sleep 3; exit 17", status: 17},
	{name: "new keys all the time", options: []string{"-o", "RekeyLimit=256K"}, command: "cat; exit 18", stdin: bulk[:1<<20], status: 18, stdout: bulk[:1<<20]},
	{name: "refused stdio forward", options: []string{"-W", "127.0.0.1:1"}, status: 255, unlike: true},
	{name: "exit 0", command: "exit 0"},
	{name: "exit 1", command: "exit 1", status: 1},
	{name: "exit 126", command: "exit 126", status: 126},
	{name: "exit 127", command: "/nonexistent/command 2>/dev/null", status: 127},
	{name: "exit 128", command: "exit 128", status: 128},
	{name: "exit 137", command: "exit 137", status: 137},
	{name: "exit 254", command: "exit 254", status: 254},
	{name: "exit 255", command: "exit 255", status: 255},
}

func (test sshTest) run(t *testing.T, l *lab, way string) outcome {
	t.Helper()
	args := append(test.options, hostName)
	if test.command != "" {
		args = append(args, test.command)
	}
	var stdin io.Reader
	if test.stdin != "" {
		stdin = strings.NewReader(test.stdin)
	}
	began := time.Now()
	got := run(t, l.ssh(way, args...), stdin)
	t.Logf("%s: %v", way, time.Since(began).Round(time.Millisecond))
	return got
}

// TestGuestKilled: a program that reads its stdin sees it end when its guest is
// gone, without warning.
func TestGuestKilled(t *testing.T) {
	l := newLab(t)
	for _, way := range both {
		gone := filepath.Join(l.dir, "gone-"+way)
		cmd := l.ssh(way, hostName, "echo ready; cat >"+gone+".part; mv "+gone+".part "+gone)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(stdout, make([]byte, len("ready\n")))
		io.WriteString(stdin, "last words")
		waitFor(t, "the words to arrive", func() bool {
			b, _ := os.ReadFile(gone + ".part")
			return string(b) == "last words"
		})
		cmd.Process.Kill()
		cmd.Wait()
		waitFor(t, "the program to end", func() bool { _, err := os.Stat(gone); return err == nil })
	}
}

// TestExitSignals: the name of the signal that ended a program arrives, which
// the ssh program does not show.
func TestExitSignals(t *testing.T) {
	l := newLab(t)
	c, err := net.Dial("tcp", l.gateway.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, chans, reqs, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{User: l.user, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, chans, reqs)
	defer client.Wait()
	defer client.Close()
	for _, signal := range []string{"TERM", "KILL", "HUP", "ABRT"} {
		s, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run("kill -" + signal + " $$") }()
		err = await(t, ended, "the program to end")
		if e, ok := errors.AsType[*ssh.ExitError](err); !ok || e.Signal() != signal {
			t.Errorf("%s: %v", signal, err)
		}
	}
}

// withoutEcho leaves out what a terminal showed of a line that came before the
// program had turned the echo off. Whether it does is a matter of luck.
func (o outcome) withoutEcho(line string) outcome {
	o.stdout = strings.TrimPrefix(strings.TrimPrefix(o.stdout, line+"\r\n"), line+"\n")
	return o
}

// TestLikeSSHD runs commands on an sshd directly and through a join.
func TestLikeSSHD(t *testing.T) {
	l := newLab(t)
	for _, test := range sshTests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			direct, spliced := test.run(t, l, "direct").withoutEcho("word"), test.run(t, l, "spliced").withoutEcho("word")
			want := outcome{test.status, test.stdout, test.stderr}
			if test.unlike && direct.status == test.status {
				want = direct
			}
			if direct != want {
				t.Errorf("direct: %v, want %v", direct, want)
			}
			if spliced != want {
				t.Errorf("spliced: %v, want %v", spliced, want)
			}
		})
	}
}
