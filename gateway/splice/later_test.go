package splice

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A laterRig joins a guest to a host that is dialled when it is needed.
type laterRig struct {
	rig
	dials  atomic.Int32
	dialed chan context.Context // each call of dial
	answer chan error           // what each returns
}

func newLaterRig(t *testing.T, h *Hooks) *laterRig {
	r := &laterRig{dialed: make(chan context.Context, 10), answer: make(chan error, 10)}
	r.t, r.done = t, make(chan struct{})
	var joined [2]Conn
	r.guest, joined[Guest], r.gate[Guest] = connect(t, true)
	r.host, joined[Host], r.gate[Host] = connect(t, false)
	dial := func(ctx context.Context) (Conn, error) {
		r.dials.Add(1)
		r.dialed <- ctx
		if err := <-r.answer; err != nil {
			return Conn{}, err
		}
		return joined[Host], nil
	}
	go func() {
		defer close(r.done)
		joinLater(joined[Guest], dial, h, defaultLimits)
	}()
	t.Cleanup(func() {
		close(r.answer)
		r.close()
		joined[Host].Close()
	})
	return r
}

// TestNoHostForKeepalive: what says nothing to a host does not have it dialled.
func TestNoHostForKeepalive(t *testing.T) {
	r := newLaterRig(t, nil)
	for _, kind := range []string{keepalive, noMoreSessions, keepalive} {
		if ok, _, err := r.guest.SendRequest(kind, true, nil); !ok || err != nil {
			t.Errorf("%s: %v, %v", kind, ok, err)
		}
	}
	if n := r.dials.Load(); n != 0 {
		t.Errorf("the host was dialled %d times", n)
	}
}

// TestPromiseIsKept: a guest that promised to open no more sessions is held to it
// by the host, which learns of it before anything else.
func TestPromiseIsKept(t *testing.T) {
	r := newLaterRig(t, nil)
	if ok, _, err := r.guest.SendRequest(noMoreSessions, true, nil); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	r.answer <- nil
	opened := make(chan error, 1)
	go func() {
		_, _, err := r.guest.OpenChannel("session", nil)
		opened <- err
	}()
	if req := await(t, r.host.Requests, "the promise"); req.Type != noMoreSessions {
		t.Errorf("%s came first", req.Type)
	}
	nc := await(t, r.host.Channels, "the session")
	nc.Reject(ssh.Prohibited, "you promised")
	if err := await(t, opened, "the refusal"); err == nil {
		t.Error("the session was opened")
	}
}

// TestEverythingWaitsForHost: channels and requests that come while the host is
// dialled share one attempt, and pass when there is one.
func TestEverythingWaitsForHost(t *testing.T) {
	r := newLaterRig(t, nil)
	forwarded := ask(r.guest, "tcpip-forward", "")
	await(t, r.dialed, "the dial")
	opened := make(chan error, 5)
	for range 5 {
		go func() {
			ch, _, err := r.guest.OpenChannel("session", nil)
			if err == nil {
				ch.Close()
			}
			opened <- err
		}()
	}
	go func() {
		for nc := range r.host.Channels {
			_, reqs, err := nc.Accept()
			if err == nil {
				go ssh.DiscardRequests(reqs)
			}
		}
	}()
	r.answer <- nil
	for range 5 {
		if err := await(t, opened, "a session"); err != nil {
			t.Error(err)
		}
	}
	req := await(t, r.host.Requests, "the request")
	req.Reply(true, []byte("port"))
	if got := await(t, forwarded, "the reply"); !got.ok || string(got.payload) != "port" {
		t.Errorf("%v", got)
	}
	if n := r.dials.Load(); n != 1 {
		t.Errorf("the host was dialled %d times", n)
	}
}

// TestUnreachable: sessions are served by the hook, everything else is refused,
// and what comes later has the host dialled again.
func TestUnreachable(t *testing.T) {
	served := make(chan string, 1)
	h := &Hooks{Unreachable: func(_ context.Context, nc ssh.NewChannel, err error) {
		served <- nc.ChannelType() + ": " + err.Error()
		nc.Reject(ssh.ConnectionFailed, err.Error())
	}}
	r := newLaterRig(t, h)
	r.answer <- errors.New("away")
	if _, _, err := r.guest.OpenChannel("session", nil); err == nil {
		t.Error("a session was opened")
	}
	if got := await(t, served, "the hook"); got != "session: away" {
		t.Errorf("%q", got)
	}
	r.answer <- errors.New("away")
	if ok, _, err := r.guest.SendRequest("tcpip-forward", true, nil); ok || err != nil {
		t.Errorf("%v, %v, want a failure", ok, err)
	}
	r.answer <- nil
	guest, host := r.session()
	start(t, guest, host)
	if n := r.dials.Load(); n != 3 {
		t.Errorf("the host was dialled %d times", n)
	}
}

// TestGuestLeavesWhileDialling: the attempt is told, and a connection that comes
// of it nevertheless is closed.
func TestGuestLeavesWhileDialling(t *testing.T) {
	for _, late := range []bool{false, true} {
		r := newLaterRig(t, nil)
		go r.guest.OpenChannel("session", nil)
		ctx := await(t, r.dialed, "the dial")
		r.guest.Close()
		await(t, ctx.Done(), "the attempt to be told")
		if !late {
			r.answer <- ctx.Err()
		} else {
			r.answer <- nil
			for range r.host.Channels { // until it is closed
			}
		}
		await(t, r.done, "Join to return")
	}
}

func TestPanicWhileDialling(t *testing.T) {
	panics := make(chan any, 1)
	guest, joined, _ := connect(t, true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		JoinLater(joined, func(context.Context) (Conn, error) { panic("dial") },
			&Hooks{Panic: func(v any, _ []byte) { panics <- v }})
	}()
	if _, _, err := guest.OpenChannel("session", nil); err == nil {
		t.Error("a session was opened")
	}
	if v := await(t, panics, "the report"); v != "dial" {
		t.Errorf("%v", v)
	}
	guest.Close()
	await(t, done, "Join to return")
}

// TestDivert: a channel can be served without the host, which is not dialled for
// it, nor for one that is refused.
func TestDivert(t *testing.T) {
	ended := make(chan struct{}, 1)
	h := &Hooks{
		Panic: func(any, []byte) {},
		Divert: func(kind string, extra []byte) (ServeFunc, error) {
			switch kind {
			case "echo":
				return func(_ context.Context, nc ssh.NewChannel) {
					ch, reqs, err := nc.Accept()
					if err != nil {
						return
					}
					go ssh.DiscardRequests(reqs)
					io.Copy(ch, ch)
					ch.Close()
					ended <- struct{}{}
				}, nil
			case "panic":
				return func(context.Context, ssh.NewChannel) { panic("served") }, nil
			case "late panic":
				return func(_ context.Context, nc ssh.NewChannel) {
					nc.Accept()
					panic("served")
				}, nil
			}
			return nil, errors.New("not this one")
		},
	}
	r := newLaterRig(t, h)
	ch, reqs, err := r.guest.OpenChannel("echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	go func() {
		ch.Write([]byte("hello"))
		ch.CloseWrite()
	}()
	if got, err := io.ReadAll(ch); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	await(t, ended, "the channel to end")
	for _, kind := range []string{"refused", "panic"} {
		if _, _, err := r.guest.OpenChannel(kind, nil); err == nil {
			t.Errorf("%s: it was opened", kind)
		}
	}
	late, lateReqs, err := r.guest.OpenChannel("late panic", nil)
	if err != nil {
		t.Fatal(err)
	}
	end{late, lateReqs}.closed(t)
	if n := r.dials.Load(); n != 0 {
		t.Errorf("the host was dialled %d times", n)
	}
}

// TestDivertedChannelEnds: what serves a channel is told when the connection is
// gone, and Join waits for it.
func TestDivertedChannelEnds(t *testing.T) {
	serving, told := make(chan struct{}), make(chan struct{})
	h := &Hooks{Divert: func(string, []byte) (ServeFunc, error) {
		return func(ctx context.Context, nc ssh.NewChannel) {
			close(serving)
			<-ctx.Done()
			close(told)
		}, nil
	}}
	r := newLaterRig(t, h)
	go r.guest.OpenChannel("forever", nil)
	await(t, serving, "the channel to be served")
	r.guest.Close()
	await(t, r.done, "Join to return")
	select {
	case <-told:
	default:
		t.Error("Join returned before the channel had ended")
	}
}

// TestWireOrderOfSessionsLater is TestWireOrderOfSessions with a host that has to
// be dialled first.
func TestWireOrderOfSessionsLater(t *testing.T) {
	for range wireRuns {
		r := &wireRig{done: make(chan struct{})}
		guest, joinedGuest := connectPeer(t, true)
		host, joinedHost := connectPeer(t, false)
		r.guest, r.host = guest, host
		go func() {
			defer close(r.done)
			JoinLater(joinedGuest, func(context.Context) (Conn, error) { return joinedHost, nil }, nil)
		}()
		r.guest.send(openMessage("session", 0), openMessage("session", 1), global(noMoreSessions, false, ""))
		for range 2 {
			b := r.host.next()
			if describe(b) != "open" {
				t.Fatalf("%s before the sessions", describe(b))
			}
			r.host.send(confirmMessage(openedBy(t, b), openedBy(t, b)))
		}
		wantRecord(t, record(r.host, noMoreSessions), noMoreSessions)
		r.close(t)
	}
}
