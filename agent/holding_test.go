//go:build linux

package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// failure is why jobs are held here.
var failure = hold.Reason{Command: hold.Command{Args: []string{"sh", "-c", "exit 3"}}, Status: 3}

// heldJob is an agent behind a fake gateway whose job is held.
type heldJob struct {
	*agent.Agent
	t       *testing.T
	gateway *fakeGateway
	tunnel  *tunnel.Tunnel
	socket  string
	stop    context.CancelFunc // of the agent
	cancel  context.CancelFunc // of the hold
	ended   chan hold.Outcome
	changes chan hold.Status
}

// holdJob starts an agent and holds its job. change may alter the agent before.
func holdJob(t *testing.T, grant auth.Grant, change func(*agent.Agent)) *heldJob {
	t.Helper()
	g := newFakeGateway(t, welcome)
	j := &heldJob{Agent: g.agent(grant), t: t, gateway: g, ended: make(chan hold.Outcome, 1), changes: make(chan hold.Status, 1000)}
	j.HangupGrace = time.Minute // programs end when they are told
	registered := make(chan agent.Registration, 10)
	j.Registered = func(r agent.Registration) { registered <- r }
	j.Changed = func(s hold.Status) { j.changes <- s }
	if change != nil {
		change(j.Agent)
	}
	running, stop := context.WithCancel(context.Background())
	held, cancel := context.WithCancel(context.Background())
	j.stop, j.cancel = stop, cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.Run(running)
	}()
	j.tunnel = g.next()
	j.socket = (<-registered).ControlSocket
	go func() {
		o, err := j.Hold(held, failure)
		check(err)
		j.ended <- o
	}()
	t.Cleanup(func() {
		cancel()
		stop()
		<-done
	})
	return j
}

// await returns the next status of which ok holds.
func (j *heldJob) await(what string, ok func(hold.Status) bool) hold.Status {
	j.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case s := <-j.changes:
			if ok(s) {
				return s
			}
		case <-deadline:
			j.t.Fatalf("waited too long: %s", what)
		}
	}
}

func held(s hold.Status) bool { return s.Held }

// outcome waits for the end of the hold.
func (j *heldJob) outcome() hold.Outcome {
	j.t.Helper()
	select {
	case o := <-j.ended:
		return o
	case <-time.After(patience):
		j.t.Fatal("the job is held on")
		return hold.Outcome{}
	}
}

// terminal is a guest's shell.
type terminal struct {
	t   *testing.T
	s   *ssh.Session
	in  io.Writer
	mu  sync.Mutex
	out bytes.Buffer
}

func (x *terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.Write(p)
}

func (x *terminal) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// await returns when the screen has shown text.
func (x *terminal) await(text string) {
	x.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); !strings.Contains(x.String(), text); <-tick.C {
		if time.Now().After(deadline) {
			x.t.Fatalf("no %q on the screen: %q", text, x.String())
		}
	}
}

func (x *terminal) typed(text string) {
	x.t.Helper()
	_, err := io.WriteString(x.in, text)
	check(err)
}

// shell opens a terminal through the gateway.
func (j *heldJob) shell() *terminal {
	j.t.Helper()
	c, err := j.gateway.client(j.tunnel, tunnel.ModeSpliced)
	check(err)
	s, err := c.NewSession()
	check(err)
	x := &terminal{t: j.t, s: s}
	s.Stdout, s.Stderr = x, x
	x.in, err = s.StdinPipe()
	check(err)
	check(s.RequestPty("xterm", 24, 80, nil))
	check(s.Shell())
	return x
}

// exec runs a command through the gateway.
func (j *heldJob) exec(command string) (stdout, stderr string, status int) {
	j.t.Helper()
	c, err := j.gateway.client(j.tunnel, tunnel.ModeSpliced)
	check(err)
	defer c.Close()
	s, err := c.NewSession()
	check(err)
	var out, errs bytes.Buffer
	s.Stdout, s.Stderr = &out, &errs
	err = s.Run(command)
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		status, err = exit.ExitStatus(), nil
	}
	check(err)
	return out.String(), errs.String(), status
}

func TestHoldExpires(t *testing.T) {
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Clocks = hold.Settings{Wait: 50 * time.Millisecond} })
	if o := j.outcome(); o.Result != hold.Expired || o.ExitStatus() != 0 || o.Why != "the hold has expired" {
		t.Errorf("%+v", o)
	}
	if s, err := j.Status(t.Context()); err != nil || s.Held || s.Outcome == nil || s.Outcome.Result != hold.Expired {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := j.Extend(t.Context(), time.Hour); !errors.Is(err, agent.ErrNotHeld) {
		t.Errorf("extended what is not held: %v", err)
	}
}

// TestHoldSurvivesALostGateway: the clocks do not need it, and a second hold can follow.
func TestHoldSurvivesALostGateway(t *testing.T) {
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Clocks = hold.Settings{Wait: 500 * time.Millisecond} })
	j.tunnel.Close()
	if o := j.outcome(); o.Result != hold.Expired {
		t.Errorf("%+v", o)
	}
	if o, err := j.Hold(t.Context(), failure); err != nil || o.Result != hold.Expired {
		t.Errorf("%+v %v", o, err)
	}
}

func TestHoldOfAnAgentThatNeverComesIn(t *testing.T) {
	a := &agent.Agent{Gateway: "127.0.0.1:1", Token: "gibberish"}
	go a.Run(t.Context())
	if o, err := a.Hold(t.Context(), failure); err != nil || o.Result != hold.Lost || o.ExitStatus() != 0 {
		t.Errorf("%+v %v", o, err)
	}
	silent := &agent.Agent{Clocks: hold.Settings{Wait: time.Millisecond}} // whose Run was never called
	if o, err := silent.Hold(t.Context(), failure); err != nil || o.Result != hold.Expired {
		t.Errorf("%+v %v", o, err)
	}
}

// TestGrantBoundsHold: it has the last word on the hard end, and the first on nothing that the job says itself.
func TestGrantBoundsHold(t *testing.T) {
	minutes := func(n time.Duration) *time.Duration { n *= time.Minute; return &n }
	j := holdJob(t, auth.Grant{Hold: &auth.GrantHold{Wait: minutes(20), Grace: minutes(3), Hard: minutes(30)}},
		func(a *agent.Agent) { a.Clocks = hold.Settings{Wait: 7 * time.Minute, Hard: 2 * time.Hour} })
	s := j.await("held", held)
	if wait, hard := s.Deadline.Sub(s.Since), s.Hard.Sub(s.Since); wait != 7*time.Minute || hard != 30*time.Minute {
		t.Errorf("waits for %s, and %s at most", wait, hard)
	}
	s, err := j.Extend(t.Context(), time.Hour)
	if err != nil || !s.Deadline.Equal(s.Hard) {
		t.Errorf("%+v %v", s, err)
	}
}

// TestGrantEndsHold: nobody is let in from then on.
func TestGrantEndsHold(t *testing.T) {
	until := time.Now().Add(4 * time.Minute).Truncate(time.Second)
	j := holdJob(t, auth.Grant{Until: until}, nil)
	if s := j.await("held", held); !s.Deadline.Equal(until) || !s.Hard.Equal(until) {
		t.Errorf("held until %s, %s at most, want %s", s.Deadline, s.Hard, until)
	}
}

func TestHoldTwice(t *testing.T) {
	j := holdJob(t, auth.Grant{}, nil)
	j.await("held", held)
	if _, err := j.Hold(t.Context(), failure); !errors.Is(err, agent.ErrHeld) {
		t.Errorf("%v", err)
	}
	if _, err := agent.DialControl(j.socket).Hold(t.Context(), failure, hold.Settings{}, nil); !errors.Is(err, agent.ErrHeld) {
		t.Errorf("by the socket: %v", err)
	}
}

// TestContinueFile: one that was there before does not count until it is touched.
func TestContinueFile(t *testing.T) {
	var file string
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) {
		file = filepath.Join(a.Dir, "continue")
		check(os.WriteFile(file, nil, 0o644))
		old := time.Now().Add(-time.Hour)
		check(os.Chtimes(file, old, old))
	})
	j.await("held", held)
	if out, _, _ := j.exec("echo still here"); out != "still here\n" {
		t.Errorf("%q", out)
	}
	check(os.Chtimes(file, time.Now(), time.Now()))
	if o := j.outcome(); o.Result != hold.Resumed || o.Why != "resumed by the file continue" {
		t.Errorf("%+v", o)
	}
}

// TestGreeting: who gets a shell reads what happened, and what to do.
func TestGreeting(t *testing.T) {
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Clocks = hold.Settings{Wait: 2 * time.Hour, Hard: 3 * time.Hour} })
	j.await("held", held)
	x := j.shell()
	x.await("stagedoor fail")
	greeting, _, _ := strings.Cut(x.String(), "to end it as failed\r\n")
	for _, want := range []string{
		"stagedoor: sh -c 'exit 3' failed with status 3\r\n", "You are in " + j.Dir + " on ", "the host of task-42.\r\n",
		"The job is held until ", "stagedoor extend 30m ", "stagedoor resume ",
	} {
		if !strings.Contains(greeting, want) {
			t.Errorf("no %q in the greeting %q", want, greeting)
		}
	}
	if !strings.Contains(greeting, ", for 5m;") && !strings.Contains(greeting, ", for 4m;") {
		t.Errorf("not the grace of who has come, but the wait for somebody: %q", greeting)
	}
	if n := strings.Count(greeting, "\n") + 1; n > 8 {
		t.Errorf("the greeting has %d lines", n)
	}
	if out, errs, _ := j.exec("echo $STAGEDOOR $STAGEDOOR_TASK $STAGEDOOR_GUEST $STAGEDOOR_COMMAND $STAGEDOOR_STATUS"); out != "1 task-42 alice sh -c 'exit 3' 3\n" || errs != "" {
		t.Errorf("a command is greeted: %q %q", out, errs)
	}
}

// TestGuestsLearnTheEnd: whatever ends a session says why.
func TestGuestsLearnTheEnd(t *testing.T) {
	for _, c := range []struct {
		what string
		end  func(*heldJob)
		want string
	}{
		{"resumed", func(j *heldJob) {
			_, err := (&agent.Control{}).Status(j.t.Context())
			if !errors.Is(err, agent.ErrNoAgent) {
				j.t.Errorf("no socket: %v", err)
			}
			control := agent.DialControl(j.socket)
			control.By = "bob"
			_, err = control.Resume(j.t.Context(), nil)
			check(err)
			<-j.ended
			j.stop()
		}, "resumed by bob"},
		{"cancelled", func(j *heldJob) { j.cancel(); <-j.ended; j.stop() }, "the job was cancelled"},
		{"stopped", func(j *heldJob) { j.stop() }, "the job has ended"},
		{"told", func(j *heldJob) { j.End("the machine goes down"); j.stop() }, "the machine goes down"},
		{"replaced", func(j *heldJob) {
			check(j.tunnel.Control().Send(j.t.Context(), tunnel.Message{Type: tunnel.TypeReplaced, Reason: "x"}))
		}, "replaced by a newer agent of the task"},
	} {
		t.Run(c.what, func(t *testing.T) {
			j := holdJob(t, auth.Grant{}, nil)
			j.await("held", held)
			x := j.shell()
			x.await("stagedoor fail")
			x.typed("printf '\\033[?1049h%s%s' in side; exec cat\n")
			x.await("inside")
			pipe := make(chan string, 1)
			go func() { // without a terminal the words are apart from the output
				_, errs, _ := j.exec("echo on; exec cat")
				pipe <- errs
			}()
			j.await("both are attached", func(s hold.Status) bool { return len(s.Guests) == 2 })
			c.end(j)
			x.await("\x1b[?1049l\r\nstagedoor: this session ends: " + c.want + "\r\n")
			err := x.s.Wait()
			if exit, ok := errors.AsType[*ssh.ExitError](err); !ok || exit.Signal() != "HUP" {
				t.Errorf("the shell ended with %v", err)
			}
			if errs := <-pipe; errs != "stagedoor: this session ends: "+c.want+"\r\n" {
				t.Errorf("without a terminal: %q", errs)
			}
		})
	}
}
