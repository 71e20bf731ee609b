package splice

import (
	"errors"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestHostOpensWhatNobodyAskedFor: no channel comes from a host before the guest
// asked for its kind, after the host refused that, or after it was cancelled.
func TestHostOpensWhatNobodyAskedFor(t *testing.T) {
	r := newRig(t, nil)
	opens := func(kind string) bool {
		t.Helper()
		go func() {
			for nc := range r.guest.Channels {
				nc.Reject(77, "the guest was asked")
			}
		}()
		_, _, err := r.host.OpenChannel(kind, nil)
		refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok {
			t.Fatalf("%s: %v", kind, err)
		}
		return refusal.Reason == 77
	}
	answer := func(granted bool) {
		req := await(t, r.host.Requests, "the request")
		req.Reply(granted, nil)
	}
	for request, kind := range map[string]string{
		"tcpip-forward":                   "forwarded-tcpip",
		"streamlocal-forward@openssh.com": "forwarded-streamlocal@openssh.com",
	} {
		for _, step := range []struct {
			request string
			granted bool
			opens   bool
		}{
			{"", false, false},
			{request, false, false},
			{request, true, true},
			{request, true, true},
			{"cancel-" + request, true, true},
			{"cancel-" + request, false, true},
			{"cancel-" + request, true, false},
			{"cancel-" + request, true, false},
		} {
			if step.request != "" {
				reply := ask(r.guest, step.request, "")
				answer(step.granted)
				await(t, reply, "the reply")
			}
			if got := opens(kind); got != step.opens {
				t.Errorf("%s after %s, granted: %v: open %v", kind, step.request, step.granted, got)
			}
		}
	}
	guest, host := r.session()
	for request, kind := range map[string]string{
		"auth-agent-req@openssh.com": "auth-agent@openssh.com",
		"agent-req":                  "agent-connect",
		"x11-req":                    "x11",
	} {
		for i, granted := range []bool{false, true} {
			if opens(kind) {
				t.Errorf("%s in round %d", kind, i)
			}
			go func() { host.request(t, request).Reply(granted, nil) }()
			if ok, err := guest.SendRequest(request, true, nil); ok != granted || err != nil {
				t.Fatalf("%s: %v, %v", request, ok, err)
			}
		}
		if !opens(kind) {
			t.Errorf("%s was refused though the guest had asked for it", kind)
		}
	}
}

// TestUnaskedReplies: a host that answers what was not asked harms nobody, and
// its answers are not taken for those to later questions.
func TestUnaskedReplies(t *testing.T) {
	r := newWireRig(t, nil, defaultLimits)
	defer r.close(t)
	for range 100 {
		r.host.send([]byte{msgGlobalSuccess, 0, 0, 0x11, 0x11}, []byte{msgGlobalFailure})
	}
	_, hostSide := r.openWire(t)
	for range 100 {
		r.host.send(channelMessage(msgSuccess, hostSide))
	}
	r.guest.send(global("tcpip-forward", true, ""))
	wantRecord(t, record(r.host, "tcpip-forward"), "tcpip-forward")
	r.host.send([]byte{msgGlobalSuccess, 0, 0, 0x22, 0x22})
	if reply := r.guest.next(); string(reply) != "\x51\x00\x00\x22\x22" {
		t.Errorf("%s %x instead of the reply", describe(reply), reply)
	}
	r.host.send(dataMessage(hostSide, []byte("still here")))
	wantRecord(t, record(r.guest, "data"), "data")

}
