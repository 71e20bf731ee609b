package splice

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestChannelHook(t *testing.T) {
	var closed atomic.Int32
	panics := make(chan any, 1)
	r := newRig(t, &Hooks{
		Channel: func(from Side, kind string, extra []byte) (*ChannelHooks, error) {
			switch {
			case kind == "refused":
				return nil, errors.New("not today")
			case kind == "panics":
				panic("channel")
			case kind == "missing":
				return nil, fmt.Errorf("policy: %w", &ssh.OpenChannelError{Reason: ssh.UnknownChannelType, Message: "unheard of"})
			case kind == "direct-tcpip" && from == Host, string(extra) != "extra":
				return nil, errors.New("wrong side or payload")
			}
			return &ChannelHooks{Closed: func() { closed.Add(1) }}, nil
		},
		Panic: func(v any, _ []byte) { panics <- v },
	})
	for _, test := range []struct {
		kind    string
		reason  ssh.RejectionReason
		message string
	}{
		{"refused", ssh.Prohibited, "not today"},
		{"missing", ssh.UnknownChannelType, "unheard of"},
		{"panics", ssh.ConnectionFailed, "internal error"},
	} {
		_, _, err := r.guest.OpenChannel(test.kind, []byte("extra"))
		e, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || e.Reason != test.reason || e.Message != test.message {
			t.Errorf("%s: %v", test.kind, err)
		}
	}
	if v := await(t, panics, "the panic"); v != "channel" {
		t.Errorf("panic %v", v)
	}

	// Closed comes once for a channel that the host refuses ...
	go func() { (<-r.host.Channels).Reject(ssh.ConnectionFailed, "Connection refused") }()
	_, _, err := r.guest.OpenChannel("direct-tcpip", []byte("extra"))
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || e.Reason != ssh.ConnectionFailed || e.Message != "Connection refused" {
		t.Errorf("refused by the host: %v", err)
	}
	waitFor(t, "Closed", func() bool { return closed.Load() == 1 })

	// ... and for one that was open.
	guest, host := r.open(Guest, "direct-tcpip")
	if closed.Load() != 1 {
		t.Error("Closed of an open channel")
	}
	guest.Close()
	host.closed(t)
	host.Close()
	waitFor(t, "Closed", func() bool { return closed.Load() == 2 })
}

func TestRequestAndDataHooks(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]string)
	note := func(key, value string) {
		mu.Lock()
		defer mu.Unlock()
		seen[key] += value
	}
	hooks := &ChannelHooks{
		Request: func(from Side, kind string, payload []byte) error {
			note("requests of "+from.String(), kind+"="+string(payload)+" ")
			if kind == "pty-req" {
				return errors.New("no PTY")
			}
			return nil
		},
		Data: func(from Side, stderr bool, p []byte) { note(fmt.Sprintf("data of %v %v", from, stderr), string(p)) },
	}
	r := newRig(t, &Hooks{Channel: func(Side, string, []byte) (*ChannelHooks, error) { return hooks, nil }})
	guest, host := r.session()
	if ok, err := guest.SendRequest("pty-req", true, []byte("tty")); ok || err != nil {
		t.Errorf("pty-req: %v, %v", ok, err)
	}
	guest.SendRequest("pty-req", false, nil) // refused without a word
	start(t, guest, host)
	guest.Write([]byte("in"))
	io.ReadFull(host, make([]byte, 2))
	host.Write([]byte("out"))
	host.Stderr().Write([]byte("err"))
	host.SendRequest("exit-status", false, []byte("7"))
	host.Close()
	io.ReadAll(guest)
	guest.request(t, "exit-status")
	guest.closed(t)

	mu.Lock()
	defer mu.Unlock()
	for key, want := range map[string]string{
		"requests of guest":   "pty-req=tty pty-req= exec=\x00\x00\x00\x03cat ",
		"requests of host":    "exit-status=7 ",
		"data of guest false": "in", "data of host false": "out", "data of host true": "err",
	} {
		if seen[key] != want {
			t.Errorf("%s: %q, want %q", key, seen[key], want)
		}
	}
}

// TestHookPanics: a panic in a channel's hook costs that channel, on both sides.
func TestHookPanics(t *testing.T) {
	panics := make(chan any, 1)
	hooks := &Hooks{
		Channel: func(_ Side, kind string, _ []byte) (*ChannelHooks, error) {
			switch kind {
			case "data":
				return &ChannelHooks{Data: func(Side, bool, []byte) { panic(kind) }}, nil
			case "request":
				return &ChannelHooks{Request: func(Side, string, []byte) error { panic(kind) }}, nil
			case "closed":
				return &ChannelHooks{Closed: func() { panic(kind) }}, nil
			}
			return nil, nil
		},
		Panic: func(v any, _ []byte) {
			panics <- v
			panic("and the hook that is told of it")
		},
	}
	r := newRig(t, hooks)
	for kind, provoke := range map[string]func(guest, host end){
		"data":    func(guest, host end) { host.Write([]byte("x")) },
		"request": func(guest, host end) { host.SendRequest("exit-status", false, nil) },
		"closed":  func(guest, host end) { guest.Close(); host.Close() },
	} {
		guest, host := r.open(Guest, kind)
		provoke(guest, host)
		if v := await(t, panics, "the panic in "+kind); v != kind {
			t.Errorf("panic %v, want %s", v, kind)
		}
		guest.closed(t)
		host.closed(t)
	}
	echo(t, r)
}

func TestUnknownTypesPass(t *testing.T) {
	r := newRig(t, nil)
	for _, from := range []Side{Guest, Host} {
		near, far := r.open(from, "tun@openssh.com")
		for _, kind := range []string{"eow@openssh.com", "anything@example.com"} {
			replied := make(chan bool, 1)
			go func() {
				ok, _ := near.SendRequest(kind, true, []byte("payload"))
				replied <- ok
			}()
			q := far.request(t, kind)
			if string(q.Payload) != "payload" {
				t.Errorf("payload %q", q.Payload)
			}
			q.Reply(true, nil)
			if !await(t, replied, "the reply") {
				t.Error("the reply was lost")
			}
		}
	}
}

// TestRefusalsPass: reason and message of a refusal arrive as they were given.
func TestRefusalsPass(t *testing.T) {
	r := newRig(t, nil)
	for _, from := range []Side{Guest, Host} {
		opener, refuser := r.guest, r.host
		if from == Host {
			opener, refuser = refuser, opener
		}
		for _, reason := range []ssh.RejectionReason{ssh.Prohibited, ssh.ConnectionFailed, ssh.UnknownChannelType, ssh.ResourceShortage, 77} {
			go func() { (<-refuser.Channels).Reject(reason, "because") }()
			_, _, err := opener.OpenChannel("channel@stagedoor", nil)
			if e, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || e.Reason != reason || e.Message != "because" {
				t.Errorf("%v: %v", reason, err)
			}
		}
	}
}

// TestClosedOfHungChannels: Closed is called although x/crypto hangs, here in a
// hook that does not return.
func TestClosedOfHungChannels(t *testing.T) {
	hang, closed := make(chan struct{}), make(chan string, 2)
	h := &Hooks{Channel: func(_ Side, kind string, _ []byte) (*ChannelHooks, error) {
		return &ChannelHooks{
			Data:   func(Side, bool, []byte) { <-hang },
			Closed: func() { closed <- kind },
		}, nil
	}}
	r := newLimitedRig(t, h, shortened(func(l *limits) {
		l.guestEnd, l.end = time.Millisecond, time.Millisecond
	}))
	guest, _ := r.open(Guest, "hangs")
	guest.Write([]byte("x"))
	r.guest.Close()
	await(t, r.done, "Join to return")
	if kind := await(t, closed, "Closed"); kind != "hangs" {
		t.Errorf("%s was closed", kind)
	}
	close(hang)
	r.host.Close()
	waitFor(t, "the goroutines to end", func() bool { return goleak.Find(goleak.IgnoreTopFunction("testing.(*T).Run")) == nil })
	select {
	case <-closed:
		t.Error("Closed was called twice")
	default:
	}
}
