//go:build linux

package agent_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// TestActivity: whatever a guest does puts the end off.
func TestActivity(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(t *testing.T, j *heldJob) // until the test ends
	}{
		{"typing", func(t *testing.T, j *heldJob) {
			x := j.shell()
			x.typed("stty -echo; cat >/dev/null\n")
			go repeat(t, func() error { _, err := io.WriteString(x.in, "x\n"); return err })
		}},
		{"output", func(t *testing.T, j *heldJob) {
			j.start("while sleep 0.5; do echo; done")
		}},
		{"computing", func(t *testing.T, j *heldJob) {
			alive := t.TempDir() // a program that has nothing of the session's is not hung up on
			j.start("exec >/dev/null 2>&1; (while test -e " + alive + "; do :; done) & wait")
		}},
		{"a forward", func(t *testing.T, j *heldJob) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			check(err)
			t.Cleanup(func() { l.Close() })
			c, err := j.gateway.client(j.tunnel, tunnel.ModeSpliced)
			check(err)
			nc, err := c.Dial("tcp", l.Addr().String())
			check(err)
			target, err := l.Accept()
			check(err)
			t.Cleanup(func() { target.Close() })
			go repeat(t, func() error { _, err := nc.Write([]byte("x")); return err })
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Clocks = hold.Settings{Grace: 30 * time.Minute} })
			j.await("held", held)
			c.do(t, j)
			s := j.await("attached", func(s hold.Status) bool { return len(s.Guests) == 1 })
			first := s.Deadline
			limit := time.Now().Add(patience)
			for !s.Deadline.After(first.Add(3 * time.Second)) { // to come alone does not move it so far
				if time.Now().After(limit) {
					t.Fatal("the end is not put off")
				}
				<-time.After(50 * time.Millisecond)
				s = mustStatus(j)
			}
		})
	}
}

// start begins a command, which is hung up on with the test.
func (j *heldJob) start(command string) {
	j.t.Helper()
	c, err := j.gateway.client(j.tunnel, tunnel.ModeSpliced)
	check(err)
	s, err := c.NewSession()
	check(err)
	check(s.Start(command))
}

// repeat does something again and again until the test ends.
func repeat(t *testing.T, f func() error) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for f() == nil {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			return
		}
	}
}

// TestIdleGuest is warned on the real clock. What a shell does that waits is no activity.
func TestIdleGuest(t *testing.T) {
	t.Parallel()
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Clocks = hold.Settings{Wait: time.Hour, Grace: 10 * time.Second} })
	j.await("held", held)
	x := j.shell()
	x.await("stagedoor: nothing happens here: the job is held for ")
	x.await("To stay: stagedoor extend 30m\r\n")
	j.await("told as well", func(s hold.Status) bool { return s.State == hold.Expiring || s.State == hold.Idle })
}

func mustStatus(j *heldJob) hold.Status {
	j.t.Helper()
	s, err := j.Status(j.t.Context())
	check(err)
	return s
}

// TestVisitBetweenLooks: a guest who has come and gone counts as one who has left.
func TestVisitBetweenLooks(t *testing.T) {
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Clocks = hold.Settings{Wait: 10 * time.Minute, Grace: 30 * time.Minute} })
	before := j.await("held", held)
	j.exec("true")
	s := j.await("left", func(s hold.Status) bool { return s.Deadline.After(before.Deadline) })
	if left := s.Deadline.Sub(s.Since); left < 30*time.Minute {
		t.Errorf("held for %s", left)
	}
}

// TestVisitBeforeTheHold does not count, and a guest who is there already does.
func TestVisitBeforeTheHold(t *testing.T) {
	j := holdJob(t, auth.Grant{}, nil)
	j.await("held", held)
	j.exec("true")
	for len(mustStatus(j).Guests) > 0 {
		<-time.After(5 * time.Millisecond)
	}
	_, err := j.Resume(t.Context(), nil)
	check(err)
	j.outcome()
	hold2 := func() hold.Status {
		go j.Hold(t.Context(), hold.Reason{Status: 77})
		return j.await("held again", func(s hold.Status) bool { return s.Held && s.Reason.Status == 77 })
	}
	if s := hold2(); s.Deadline.Sub(s.Since) != hold.DefaultWait {
		t.Errorf("held for %s", s.Deadline.Sub(s.Since))
	}
	_, err = j.Resume(t.Context(), nil)
	check(err)
	j.await("resumed", func(s hold.Status) bool { return !s.Held })
	x := j.shell()
	j.await("attached", func(s hold.Status) bool { return len(s.Guests) == 1 && !s.Held })
	if s := hold2(); s.Deadline.Sub(s.Since) >= hold.DefaultWait {
		t.Errorf("held for %s, though somebody is there", s.Deadline.Sub(s.Since))
	}
	x.s.Close()
}
