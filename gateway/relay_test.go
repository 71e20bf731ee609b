package gateway_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// jumpTo opens a jump as bytes.
func jumpTo(c *ssh.Client, task string) (ssh.Channel, error) {
	ch, reqs, err := c.OpenChannel("direct-tcpip", ssh.Marshal(struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}{task, 22, "127.0.0.1", 1}))
	if err == nil {
		go ssh.DiscardRequests(reqs)
	}
	return ch, err
}

func mustJump(t *testing.T, c *ssh.Client, task string) ssh.Channel {
	t.Helper()
	ch, err := jumpTo(c, task)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// answerAtEnd reads to the end and answers then: what needs a half-close.
func answerAtEnd(_ *fakeHost, s *tunnel.Stream) {
	in, err := io.ReadAll(s)
	if err != nil {
		return
	}
	sum := sha256.Sum256(in)
	s.Write(append(sum[:], in...))
}

// TestJumpPassesBytes sends megabytes through a half-close and gets them back,
// many times at once.
func TestJumpPassesBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	var header atomic.Pointer[tunnel.StreamHeader]
	w.startHost("task-1", w.token("task-1", time.Now(), k), func(h *fakeHost, s *tunnel.Stream) {
		hdr := s.Header()
		header.Store(&hdr)
		answerAtEnd(h, s)
	})
	c := w.mustDial("somebody", k)
	data := bytes.Repeat([]byte("stagedoor"), 400_000)
	results := make(chan error, 4)
	for range 4 {
		go func() { results <- roundTrip(c, data) }()
	}
	for range 4 {
		if err := await(t, results, "a round trip"); err != nil {
			t.Error(err)
		}
	}
	if h := header.Load(); h.Mode != tunnel.ModeEndToEnd || !strings.HasPrefix(h.Remote, "127.0.0.1:") || h.Certificate != nil {
		t.Errorf("header of the stream: %+v", h)
	}
	eventually(t, "the bytes are logged and counted", func() bool {
		return strings.Count(w.log.String(), "from_guest=3600000 from_host=3600032") == 4 &&
			w.metric(`stagedoor_jumps_total{result="ok"}`) == "4" &&
			w.metric(`stagedoor_jump_bytes_total{from="guest"}`) == "1.44e+07"
	})
}

func roundTrip(c *ssh.Client, data []byte) error {
	ch, err := jumpTo(c, "task-1")
	if err != nil {
		return err
	}
	defer ch.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := ch.Write(data)
		wrote <- errors.Join(err, ch.CloseWrite())
	}()
	got, err := io.ReadAll(ch)
	if err == nil {
		err = <-wrote
	}
	sum := sha256.Sum256(data)
	if err == nil && !bytes.Equal(got, append(sum[:], data...)) {
		err = errors.New("other bytes came back")
	}
	return err
}

// TestJumpEnds: whichever side ends, the other is told, and no stream is left.
func TestJumpEnds(t *testing.T) {
	ends := map[string]func(ssh.Channel, *ssh.Client, *fakeHost){
		"the guest closes the channel":    func(ch ssh.Channel, _ *ssh.Client, _ *fakeHost) { ch.Close() },
		"the guest ends its half":         func(ch ssh.Channel, _ *ssh.Client, _ *fakeHost) { ch.CloseWrite() },
		"the guest's connection ends":     func(_ ssh.Channel, c *ssh.Client, _ *fakeHost) { c.Close() },
		"the tunnel is lost":              func(_ ssh.Channel, _ *ssh.Client, h *fakeHost) { h.end() },
		"the host closes the stream":      func(ch ssh.Channel, _ *ssh.Client, _ *fakeHost) { ch.Write([]byte("end")) },
		"the host ends, the guest closes": func(ch ssh.Channel, _ *ssh.Client, _ *fakeHost) { ch.Write([]byte("end")); ch.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := testenv.NewKey(t, w.dir, "alice")
			hostEnded := make(chan struct{})
			h := w.startHost("task-1", w.token("task-1", time.Now(), k), func(_ *fakeHost, s *tunnel.Stream) {
				defer close(hostEnded)
				s.Write([]byte("hello"))
				for p := make([]byte, 3); ; {
					if _, err := io.ReadFull(s, p); err != nil || string(p) == "end" {
						return
					}
				}
			})
			c := w.mustDial("somebody", k)
			ch := mustJump(t, c, "task-1")
			if _, err := io.ReadFull(ch, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			guestEnded := make(chan struct{})
			go func() {
				defer close(guestEnded)
				io.Copy(io.Discard, ch)
			}()
			end(ch, c, h)
			await(t, guestEnded, "the guest to be told")
			ch.Close()
			await(t, hostEnded, "the host to be told")
			eventually(t, "the end is logged", func() bool { return strings.Contains(w.log.String(), "jump ended") })
		})
	}
}

// TestJumpWaitsForRedial: a jump waits for a host that dials again, and comes
// back through the new tunnel.
func TestJumpWaitsForRedial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	hostKey := testenv.Signer(t)
	r := newRelay(t, w.https)
	w.startAgent(w.token("task-1", time.Now(), k), func(a *agent.Agent) {
		a.Gateway, a.HostKey = r.Addr().String(), hostKey
	})
	j := w.newJumper(map[string]ssh.PublicKey{"task-1": hostKey.PublicKey()}, "IdentityFile "+k.File)
	r.cut()
	eventually(t, "the gateway notices that the tunnel is gone", func() bool {
		return strings.Contains(w.log.String(), "tunnel ended")
	})
	if out, err := j.command("-J", "gw", "task-1", "echo back").CombinedOutput(); err != nil || string(out) != "back\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// TestJumpToHostThatIsGone: who waits in vain is told so, and for strangers there
// is no difference to a task that never was.
func TestJumpToHostThatIsGone(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.HostTimeout = 50 * time.Millisecond })
	k, other := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "other")
	h := w.startHost("task-1", w.token("task-1", time.Now(), k), answerAtEnd)
	w.startHost("task-2", w.token("task-2", time.Now(), other), answerAtEnd)
	mine, others := w.mustDial("somebody", k), w.mustDial("somebody", other)
	h.end()
	eventually(t, "the gateway notices", func() bool { return strings.Contains(w.log.String(), "tunnel ended") })
	if _, err := jumpTo(mine, "task-1"); err == nil || !strings.Contains(err.Error(), "did not come back in time") {
		t.Errorf("%v", err)
	}
	_, gone := jumpTo(others, "task-1")
	_, never := jumpTo(others, "task-3")
	if gone == nil || never == nil || gone.Error() != never.Error() {
		t.Errorf("%v; of a task that never was: %v", gone, never)
	}
}

// TestJumpWaitsForOtherHost: a host that comes while a jump waits need not let
// the guest in.
func TestJumpWaitsForOtherHost(t *testing.T) {
	w := newWorld(t)
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	h := w.startHost("task-1", w.token("task-1", time.Now().Add(-time.Minute), alice), answerAtEnd)
	c := w.mustDial("somebody", alice)
	h.end()
	eventually(t, "the gateway notices", func() bool { return w.metric("stagedoor_tunnels") == "0" })
	result := make(chan error, 1)
	go func() {
		_, err := jumpTo(c, "task-1")
		result <- err
	}()
	// The jump has begun to wait when this one, of the same connection, has ended.
	if _, err := jumpTo(c, "task-2"); err == nil {
		t.Error("there is no such task")
	}
	w.startHost("task-1", w.token("task-1", time.Now(), bob), answerAtEnd)
	if err := await(t, result, "the answer"); err == nil || !strings.Contains(err.Error(), "no task of this name is open") {
		t.Errorf("%v", err)
	}
}

// TestJumpIsJudgedEachTime: what a key opens is looked up for each jump.
func TestJumpIsJudgedEachTime(t *testing.T) {
	w := newWorld(t)
	alice, bob := testenv.NewKey(t, w.dir, "alice"), testenv.NewKey(t, w.dir, "bob")
	issued := time.Now().Add(-time.Minute)
	w.startHost("task-1", w.token("task-1", issued, alice), answerAtEnd)
	w.startHost("task-2", w.token("task-2", issued, alice), answerAtEnd)
	c := w.mustDial("somebody", alice)
	own := w.mustDial("task-1", alice)
	mustJump(t, c, "task-1").Close()
	mustJump(t, own, "task-1").Close()
	w.startHost("task-1", w.token("task-1", issued.Add(time.Second), bob), answerAtEnd)
	for name, c := range map[string]*ssh.Client{"by another name": c, "by the task's": own} {
		if _, err := jumpTo(c, "task-1"); err == nil {
			t.Errorf("%s: the new host's grant does not name the key, and it was let in", name)
		}
	}
	mustJump(t, c, "task-2").Close()
	mustJump(t, w.mustDial("somebody", bob), "task-1").Close()
}

// TestKeysOfEndedTaskAreForgotten: a key signs in for as long as a task names it.
func TestKeysOfEndedTaskAreForgotten(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) { s.Limits.HostGrace = time.Millisecond })
	k := testenv.NewKey(t, w.dir, "alice")
	first := w.startHost("task-1", w.token("task-1", time.Now(), k), answerAtEnd)
	second := w.startHost("task-2", w.token("task-2", time.Now(), k), answerAtEnd)
	signsIn := func() bool {
		c, err := w.dial("somebody", ssh.PublicKeys(k.Signer))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	first.end()
	if !signsIn() {
		t.Error("a key that another task names is not taken")
	}
	second.end()
	eventually(t, "the key is not taken any more", func() bool { return !signsIn() })
}

// TestOperatorJumps: who may enter every task may jump to each that there is, be
// the jump hop's name one that a task could have or not.
func TestOperatorJumps(t *testing.T) {
	dir := t.TempDir()
	operator := testenv.NewKey(t, dir, "operator")
	w := newWorld(t, withOperatorKeys(t, operator.Line+"\n"))
	w.startHost("task-1", w.token("task-1", time.Now()), answerAtEnd)
	for _, user := range []string{"Opera Tor", "root"} {
		c := w.mustDial(user, operator)
		mustJump(t, c, "task-1").Close()
		if _, err := jumpTo(c, "task-2"); err == nil || !strings.Contains(err.Error(), "no task of this name is open") {
			t.Errorf("%v", err)
		}
	}
}

// TestOperatorIsEarly: an operator who is there before the task gets in when it
// comes.
func TestOperatorIsEarly(t *testing.T) {
	dir := t.TempDir()
	operator := testenv.NewKey(t, dir, "operator")
	w := newWorld(t, withOperatorKeys(t, operator.Line+"\n"))
	c := w.mustDial("task-1", operator)
	w.startAgent(w.token("task-1", time.Now()))
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo fine"); err != nil || string(out) != "fine\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// TestJumpLimits: jumps count as channels of their connection and as streams of
// their host.
func TestJumpLimits(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) {
		s.Limits.ChannelsPerConnection = 2
		s.Limits.StreamsPerTunnel = 3
	})
	k := testenv.NewKey(t, w.dir, "alice")
	w.startHost("task-1", w.token("task-1", time.Now(), k), answerAtEnd)
	c := w.mustDial("somebody", k)
	first := mustJump(t, c, "task-1")
	mustJump(t, c, "task-1")
	if _, err := jumpTo(c, "task-1"); err == nil || !strings.Contains(err.Error(), "as many channels open as it may") {
		t.Errorf("a third channel: %v", err)
	}
	c = w.mustDial("somebody", k)
	mustJump(t, c, "task-1")
	if _, err := jumpTo(c, "task-1"); err == nil || !strings.Contains(err.Error(), "as many connections as it may") {
		t.Errorf("a fourth stream: %v", err)
	}
	first.Close()
	eventually(t, "the place is free", func() bool {
		ch, err := jumpTo(c, "task-1")
		if err == nil {
			ch.Close()
		}
		return err == nil
	})
}

// TestJumperIsIdle: a connection that only jumps is kept alive and ended as any
// other, and its host sees no spliced guest.
func TestJumperIsIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *gateway.Settings) {
		s.Limits.KeepaliveInterval = 500 * time.Millisecond
		s.Limits.KeepaliveCount = 2
	})
	k := testenv.NewKey(t, w.dir, "alice")
	streams := make(chan string, 10)
	w.startHost("task-1", w.token("task-1", time.Now(), k), func(h *fakeHost, s *tunnel.Stream) {
		streams <- s.Header().Mode
		answerAtEnd(h, s)
	})
	r := newRelay(t, w.ssh)
	c, err := ssh.Dial("tcp", r.Addr().String(), &ssh.ClientConfig{
		User: "task-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(k.Signer)}, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, kind := range []string{"keepalive@openssh.com", "no-more-sessions@openssh.com"} {
		if ok, _, err := c.SendRequest(kind, true, nil); !ok || err != nil {
			t.Errorf("%s: %v, %v", kind, ok, err)
		}
	}
	mustJump(t, c, "task-1")
	if mode := await(t, streams, "the stream"); mode != tunnel.ModeEndToEnd {
		t.Errorf("a stream of mode %q", mode)
	}
	r.freeze()
	eventually(t, "the guest is dropped", func() bool {
		return strings.Contains(w.log.String(), "did not answer keepalives") && strings.Contains(w.log.String(), "jump ended")
	})
	if len(streams) > 0 {
		t.Errorf("another stream was opened, of mode %q", <-streams)
	}
}

// TestDrainWaitsForJump: a gateway that goes down lets jumps end in peace.
func TestDrainWaitsForJump(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startHost("task-1", w.token("task-1", time.Now(), k), answerAtEnd)
	c := w.mustDial("somebody", k)
	ch := mustJump(t, c, "task-1")
	drained := make(chan error, 1)
	go func() { drained <- w.server.Drain(t.Context()) }()
	ch.Write([]byte("still here"))
	ch.CloseWrite()
	if got, err := io.ReadAll(ch); err != nil || !strings.HasSuffix(string(got), "still here") {
		t.Errorf("%q, %v", got, err)
	}
	select {
	case err := <-drained:
		t.Errorf("the gateway ended under its guest: %v", err)
	default:
	}
	c.Close()
	if err := await(t, drained, "the gateway to end"); err != nil {
		t.Error(err)
	}
}

// TestPolicyIsTold: agents learn what guests may do at most.
func TestPolicyIsTold(t *testing.T) {
	policy := &ssh.Permissions{Extensions: map[string]string{auth.PermitPTY: ""}}
	for _, p := range []*ssh.Permissions{nil, policy} {
		w := newWorld(t, func(s *gateway.Settings) { s.Policy = p })
		h := w.startHost("task-1", w.token("task-1", time.Now()), answerAtEnd)
		got, err := auth.ParsePolicy(h.welcome.Policy)
		if err != nil {
			t.Fatal(err)
		}
		if p == nil && got != nil {
			t.Errorf("no policy became %v", got)
		}
		if p != nil {
			_, pty := got.Extensions[auth.PermitPTY]
			_, exec := got.Extensions[auth.PermitExec]
			if !pty || exec {
				t.Errorf("the policy became %v", got)
			}
		}
	}
}
