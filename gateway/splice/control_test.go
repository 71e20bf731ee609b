package splice

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// master starts a multiplexing ssh (ControlMaster) and returns the options that
// use it.
func (l *lab) master(t *testing.T, way string) []string {
	t.Helper()
	path := filepath.Join(l.dir, "master-"+way)
	l.forwarding(t, way, "-M", "-S", path)
	return []string{"-S", path}
}

// TestControlMaster runs hundreds of commands over one connection, many at
// once. A multiplexing client closes a channel as soon as both sides have sent
// EOF: whatever EOF gets ahead of the exit status loses it, and ssh ends with
// 255.
func TestControlMaster(t *testing.T) {
	l := newLab(t)
	options := l.master(t, "spliced")
	commands := []sshTest{
		{command: "exit %d"},
		{command: "cat; exit %d", stdin: "hello", stdout: "hello"},
		{command: "exec >&- 2>&-; exit %d"},
		{command: "exec <&- >&- 2>&-; sleep 0.01; exit %d"},
		{command: "head -c 300000 /dev/zero | tr '\\0' x; exit %d", stdout: strings.Repeat("x", 300000)},
		{command: "echo out; echo err >&2; exit %d", stdout: "out\n", stderr: "err\n"},
	}
	const workers, runs = 12, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range runs {
				test := commands[(w+i)%len(commands)]
				status := (w*runs + i) % 250
				cmd := l.ssh("spliced", append(options, hostName, fmt.Sprintf(test.command, status))...)
				got := run(t, cmd, strings.NewReader(test.stdin))
				if want := (outcome{status, test.stdout, test.stderr}); got != want {
					t.Errorf("%s: %v, want %v", test.command, got, want)
				}
			}
		})
	}
	wg.Wait()
}

// TestControlForward adds and cancels forwards on a running master.
func TestControlForward(t *testing.T) {
	l := newLab(t)
	target := sink(t, "tcp", "127.0.0.1:0").Addr().String()
	for _, way := range both {
		options := l.master(t, way)
		for _, flag := range []string{"-L", "-R"} {
			addr := "127.0.0.1:" + freePort(t)
			spec := addr + ":" + target
			if got := run(t, l.ssh(way, append(options, "-O", "forward", flag, spec, hostName)...), nil); got.status != 0 {
				t.Fatalf("%s %s: forward: %v", way, flag, got)
			}
			dialAndAsk(t, "tcp", addr, []byte("hello"))
			if got := run(t, l.ssh(way, append(options, "-O", "cancel", flag, spec, hostName)...), nil); got.status != 0 {
				t.Errorf("%s %s: cancel: %v", way, flag, got)
			}
			if got := run(t, l.ssh(way, append(options, "-O", "forward", flag, spec, hostName)...), nil); got.status != 0 {
				t.Errorf("%s %s: forward the same port again: %v", way, flag, got)
			}
		}
		if got := run(t, l.ssh(way, append(options, "-O", "exit", hostName)...), nil); got.status != 0 {
			t.Errorf("%s: exit: %v", way, got)
		}
	}
}
