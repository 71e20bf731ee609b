//go:build linux

package agent

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestNothingLeaks runs many sessions of all kinds, ended in all ways, and counts what is left.
func TestNothingLeaks(t *testing.T) {
	h := newTestHost(t, nil)
	h.file("file", []byte("content"))
	round := func(n int) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range n / 4 {
					leakySession(t, h, i)
				}
			})
		}
		wg.Wait()
		h.nothingLeft()
		eventually(t, "the end of all sessions", func() bool { return h.Sessions() == 0 })
	}
	round(40) // what is made once
	before := held(t)
	if raced {
		round(200)
	} else {
		round(1000)
	}
	var after [2]int
	eventually(t, fmt.Sprintf("the same descriptors and goroutines as before, %v", before), func() bool {
		after = held(t)
		return after[0] <= before[0] && after[1] <= before[1]
	})
}

// held counts open descriptors and goroutines.
func held(t *testing.T) [2]int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return [2]int{len(fds), runtime.NumGoroutine()}
}

func leakySession(t *testing.T, h *testHost, i int) {
	c, err := dialWith(t, h, h.addr, ssh.PublicKeys(h.guest))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Error(err)
		return
	}
	switch i % 8 {
	case 0: // ends by itself
		s.Run("echo out; echo err >&2; cat file")
	case 1:
		s.RequestPty("xterm", 24, 80, nil)
		s.Run("echo out; stty size")
	case 2: // the connection is lost
		s.Start("sleep 1000 | sleep 1000")
	case 3:
		s.RequestPty("xterm", 24, 80, nil)
		s.Start("sleep 1000 & cat /dev/zero")
	case 4: // nothing is started
		s.RequestPty("xterm", 24, 80, nil)
	case 5: // the channel is closed
		in, _ := s.StdinPipe()
		s.Start("cat >/dev/null")
		in.Write(make([]byte, 1<<20))
		s.Close()
	case 6:
		s.RequestSubsystem("sftp")
	case 7: // ended by a signal
		s.Start("exec sleep 1000")
		s.Signal(ssh.SIGTERM)
		s.Wait()
	}
}

// serveInBackground is a host that was started as a shell starts a background job: with SIGINT and SIGHUP ignored, and with a
// descriptor that is none of its guests' business. It serves one connection on descriptor 3 of its parent's making.
func serveInBackground() {
	h, l, err := backgroundHost()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	h.Serve(l)
}

// Ctrl-C works even though whoever started the agent made it ignore SIGINT.
func TestStartedInTheBackground(t *testing.T) {
	guest, _ := newSigner(t)
	hostKey, key := newSigner(t)
	secret, err := os.CreateTemp(t.TempDir(), "inherited")
	must(t, err)
	defer secret.Close()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap "" INT HUP QUIT; exec "$0" 3<"$1"`, os.Args[0], secret.Name())
	cmd.Env = append(os.Environ(), "AGENT_TEST_BACKGROUND="+line(guest), "AGENT_TEST_KEY="+encodeKey(t, key), "HOME="+t.TempDir())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var addr string
	_, err = fmt.Fscan(out, &addr)
	must(t, err)
	h := &testHost{t: t, addr: addr, guest: guest, Server: &Server{HostKey: hostKey}}
	c := h.dial()
	for _, name := range []string{"INT", "HUP", "QUIT"} {
		if got := output(t, c, "sh -c 'ulimit -c 0; kill -"+name+" $$; echo ignored'; true"); strings.Contains(got, "ignored") {
			t.Errorf("SIG%s is ignored by programs", name)
		}
	}
	if got := output(t, c, "ls -l /proc/self/fd"); strings.Contains(got, secret.Name()) {
		t.Errorf("a descriptor was inherited: %s", got)
	}
}

func TestIgnoredSignalsStayIgnoredHere(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests themselves run in the background")
	}
	inheritNothing()
	if signal.Ignored(syscall.SIGINT) {
		t.Error("SIGINT is ignored")
	}
}
