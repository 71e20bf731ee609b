package splice

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/crypto/ssh"
)

type reply struct {
	ok      bool
	payload string
	err     error
}

// ask sends a global request and returns where its reply will be.
func ask(c ssh.Conn, kind string, payload string) <-chan reply {
	got := make(chan reply, 1)
	go func() {
		ok, b, err := c.SendRequest(kind, true, []byte(payload))
		got <- reply{ok, string(b), err}
	}()
	return got
}

func TestGlobalReplies(t *testing.T) {
	r := newRig(t, nil)
	for _, from := range []Side{Guest, Host} {
		asker, answerer := r.guest, r.host
		if from == Host {
			asker, answerer = answerer, asker
		}
		for _, want := range []reply{{true, "port", nil}, {true, "", nil}, {false, "", nil}, {false, "why", nil}} {
			got := ask(asker, "tcpip-forward", "payload")
			q := await(t, answerer.Requests, "the request")
			if q.Type != "tcpip-forward" || string(q.Payload) != "payload" || !q.WantReply {
				t.Fatalf("%+v arrived", q)
			}
			q.Reply(want.ok, []byte(want.payload))
			if got := await(t, got, "the reply"); got != want {
				t.Errorf("from %v: reply %v, want %v", from, got, want)
			}
		}
		asker.SendRequest("no-reply@stagedoor", false, []byte("payload"))
		if q := await(t, answerer.Requests, "the request"); q.WantReply || string(q.Payload) != "payload" {
			t.Errorf("%+v arrived", q)
		}
	}
}

// TestGlobalOrder: requests arrive, and are answered, in their order.
func TestGlobalOrder(t *testing.T) {
	r := newRig(t, nil)
	const n = 200
	go func() {
		for i := range n {
			q := <-r.host.Requests
			if q == nil {
				return
			}
			q.Reply(true, fmt.Append(nil, i, q.Type))
		}
	}()
	for i := range n {
		kind := fmt.Sprint("request-", i)
		if got := await(t, ask(r.guest, kind, ""), "the reply"); got.payload != fmt.Sprint(i, kind) {
			t.Fatalf("reply %v to %s", got, kind)
		}
	}
}

func TestGlobalHook(t *testing.T) {
	panics := make(chan any, 1)
	r := newRig(t, &Hooks{
		Global: func(from Side, q *ssh.Request) (bool, error) {
			switch q.Type {
			case "handled":
				q.Reply(true, []byte(from.String()))
				return true, nil
			case "refused":
				return false, errors.New("no")
			case "panics":
				panic("global")
			}
			return false, nil
		},
		Panic: func(v any, stack []byte) { panics <- fmt.Sprint(v, len(stack) > 0) },
	})
	for _, test := range []struct {
		kind string
		want reply
	}{{"handled", reply{true, "guest", nil}}, {"refused", reply{}}, {"panics", reply{}}} {
		if got := await(t, ask(r.guest, test.kind, ""), "the reply"); got != test.want {
			t.Errorf("%s: reply %v, want %v", test.kind, got, test.want)
		}
	}
	if got := await(t, panics, "the panic"); got != "globaltrue" {
		t.Errorf("panic %v", got)
	}
	got := ask(r.guest, "passes", "")
	await(t, r.host.Requests, "the request").Reply(true, nil)
	if !await(t, got, "the reply").ok {
		t.Error("the reply was lost")
	}
}
