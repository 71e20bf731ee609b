package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// canaryTries is how often a fresh text is looked for: the buffer that held one
// may have been used again before it was read.
const canaryTries = 4

// TestCanary: what is typed and printed in an end-to-end session is nowhere in the
// gateway's memory, its log, or on its sockets. The same search finds what was
// spliced, so it would find the other.
func TestCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	guests, hosts := newTap(t, w.ssh), newTap(t, w.https)
	hostKey := keygen(t, w.dir, "host", "-t", "ed25519")
	w.startAgent([]string{"STAGEDOOR_GATEWAY=" + hosts.address}, "--host-key", hostKey.File)
	w.ssh = guests.address
	e := w.endToEnd(t, hostKey)
	for name, show := range map[string]showCanary{"typed": (*world).typeCanary, "printed": (*world).printCanary} {
		t.Run(name, func(t *testing.T) {
			w, e := w.in(t), e.in(t)
			found := 0
			for range canaryTries {
				found += w.canary(show, guests, hosts)
			}
			t.Logf("spliced, %d copies in the gateway's memory after %d tries", found, canaryTries)
			if found == 0 {
				t.Error("what was spliced is not found, so this search is worth nothing")
			}
			for range canaryTries {
				if n := e.canary(show, guests, hosts); n > 0 {
					t.Errorf("end to end, %d copies in the gateway's memory", n)
				}
			}
		})
	}
}

// showCanary has a text pass a session, which stays open until end is called.
type showCanary func(w *world, text string) (end func())

// canary shows a fresh text many times over in a session, and counts its copies in
// the gateway's memory while that is open. It must neither be on a socket of the
// gateway nor in its log, be it spliced or not.
func (w *world) canary(show showCanary, taps ...*tap) (found int) {
	w.t.Helper()
	random := make([]byte, 16)
	rand.Read(random)
	mark := hex.EncodeToString(random)
	text := strings.Repeat(mark, 32)
	before := taps[0].size()
	end := show(w, text)
	found = searchMemory(w.t, w.gateway.Cmd.Process.Pid, []byte(mark))
	end()
	if passed := taps[0].size() - before; passed < len(text) {
		w.t.Errorf("%d bytes passed the gateway, so the text went another way", passed)
	}
	for _, tap := range taps {
		if tap.contains(mark) {
			w.t.Error("the text was on a socket of the gateway")
		}
	}
	if strings.Contains(w.gateway.Output.String(), mark) {
		w.t.Error("the text is in the gateway's log")
	}
	return found
}

// typeCanary types the text into a terminal, where it is echoed, and printed once
// more by cat.
func (w *world) typeCanary(text string) (end func()) {
	w.t.Helper()
	cmd := w.command("ssh", "-tt", w.target(), "echo ready; cat")
	terminal, err := pty.Start(cmd)
	mustDo(w.t, err)
	var screen testenv.Output
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(&screen, terminal)
	}()
	end = func() {
		cmd.Process.Kill()
		cmd.Wait()
		<-done // nobody has the terminal open any more
		terminal.Close()
	}
	w.await(&screen, done, "ready")
	io.WriteString(terminal, text+"\n")
	w.await(&screen, done, text+"\r\n"+text+"\r\n")
	return end
}

// printCanary has a command print the text out of a file of the host.
func (w *world) printCanary(text string) (end func()) {
	w.t.Helper()
	mustDo(w.t, os.WriteFile(filepath.Join(w.home, "canary"), []byte(text), 0o600))
	p := testenv.StartClient(w.t, w.command("ssh", w.target(), "cat canary; exec sleep 1000"))
	p.WaitFor(text)
	return p.Kill
}

// await waits until something has been printed.
func (w *world) await(o *testenv.Output, done <-chan struct{}, text string) {
	w.t.Helper()
	ctx, cancel := contextFor(w.t)
	defer cancel()
	if !o.Wait(ctx, func(s string) bool { return strings.Contains(s, text) }, done) {
		w.t.Fatalf("%q was not printed, but\n%s", text, o.String())
	}
}
