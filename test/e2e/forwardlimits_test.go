package e2e

import (
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestForwardLimits: who may forward where, by the task's token, the key's line
// and the operator's configuration.
func TestForwardLimits(t *testing.T) {
	t.Parallel()
	inside, outside := serve(t, "127.0.0.1:0", echo), serve(t, "127.0.0.1:0", echo)
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		w, may := newWorld(t), testenv.FreeAddress(t)
		w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--permit-open", inside, "--permit-listen", may)})
		w.testLimits(inside, outside, may)
	})
	t.Run("key", func(t *testing.T) {
		t.Parallel()
		w, may := newWorld(t), testenv.FreeAddress(t)
		bob := keygen(t, w.dir, "bob", "-t", "ed25519")
		line := `permitopen="` + inside + `",permitlisten="` + may + `" ` + bob.Line
		w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--authorized-keys", lines(t, line))})
		w.key = bob
		w.testLimits(inside, outside, may)
	})
	t.Run("operator", func(t *testing.T) {
		t.Parallel()
		may := testenv.FreeAddress(t)
		w := newWorld(t, "guests:", `  permit_open: ["`+inside+`", "localhost:*"]`, `  permit_listen: ["`+may+`"]`)
		w.startAgent(nil)
		w.testLimits(inside, outside, may)
	})
	t.Run("no permission", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--permissions", "pty,exec,sftp")})
		w.expectForbidden("-W", inside)
		w.expectNotListening(testenv.FreeAddress(t))
		w.run("true")
	})
	t.Run("gateway ports", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.startAgent([]string{"STAGEDOOR_TOKEN=" + w.token("--permissions", "port-forwarding,gateway-ports")})
		// An address of the loopback interface that would not be bound otherwise.
		_, port, _ := strings.Cut(testenv.FreeAddress(t), ":")
		w.remoteForward("-R", "127.0.0.2:"+port+":"+inside)
		expectAnswer(t, dial(t, "127.0.0.2:"+port))
		if got := listeners(t, port); len(got) != 1 {
			t.Errorf("asked to listen on 127.0.0.2, the host listens on %q", got)
		}
	})
}

// testLimits reaches one of two targets, and has the host listen on the one port
// that it may.
func (w *world) testLimits(inside, outside, may string) {
	w.t.Helper()
	local := testenv.FreeAddress(w.t)
	w.remoteForward("-L", local+":"+inside, "-R", may+":"+inside)
	expectAnswer(w.t, dial(w.t, local))
	expectAnswer(w.t, dial(w.t, may))
	w.expectForbidden("-W", outside)
	w.expectForbidden("-L", socket(w.t)) // sockets are no host:port
	w.expectNotListening(testenv.FreeAddress(w.t))
	w.expectNotListening(socket(w.t))
}

// expectForbidden wants a target to be refused as sshd refuses what it does not
// permit: the reason is that of RFC 4254 §5.1.
func (w *world) expectForbidden(option, to string) {
	w.t.Helper()
	if words := w.refusal(option, to); !strings.HasPrefix(words, "administratively prohibited: ") {
		w.t.Errorf("%s %s: %q", option, to, words)
	}
}

// expectNotListening wants -R to fail.
func (w *world) expectNotListening(address string) {
	w.t.Helper()
	out := fails(w.t, w.command("ssh", "-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R", address+":127.0.0.1:9", w.target()))
	if !strings.Contains(out, "remote port forwarding failed") && !strings.Contains(out, "Remote forwarding failed") {
		w.t.Errorf("-R %s: %s", address, out)
	}
}
