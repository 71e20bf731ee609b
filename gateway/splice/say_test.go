package splice

import (
	"io"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestSay shows words to a guest amid a program's output, and to nobody before the
// program runs, after its end, or in what is no session.
func TestSay(t *testing.T) {
	says := make(chan func(string) <-chan struct{}, 2)
	r := newRig(t, &Hooks{Channel: func(Side, string, []byte) (*ChannelHooks, error) {
		return &ChannelHooks{Opened: func(say func(string) <-chan struct{}) { says <- say }}, nil
	}})
	guest, host := r.session()
	say := await(t, says, "the session to be open")
	await(t, say("too early"), "words for nobody")
	start(t, guest, host)
	host.Stderr().Write([]byte("out"))
	read := func(n int) string {
		b := make([]byte, n)
		if _, err := io.ReadFull(guest.Stderr(), b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	read(3)
	await(t, say("hear"), "words")
	if got := read(4); got != "hear" {
		t.Errorf("the guest reads %q", got)
	}
	host.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
	host.Close()
	guest.request(t, "exit-status")
	guest.closed(t)
	await(t, say("too late"), "words for nobody")

	r.open(Guest, "direct-tcpip")
	await(t, await(t, says, "the channel to be open")("hello"), "words for nobody")
}

// TestLost: a guest whose host goes without a word is told, behind all output, and
// no other is.
func TestLost(t *testing.T) {
	lost := &Hooks{Channel: func(Side, string, []byte) (*ChannelHooks, error) {
		return &ChannelHooks{Lost: func() string { return "lost" }}, nil
	}}
	for _, c := range []struct {
		what string
		end  func(r *rig, host end)
		want string
	}{
		{"the connection was lost", func(r *rig, host end) { r.host.Close() }, "outlost"},
		{"the channel was closed", func(r *rig, host end) { host.Close() }, "outlost"},
		{"the program has ended", func(r *rig, host end) {
			host.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
			host.Close()
		}, "out"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t, lost)
			guest, host := r.session()
			start(t, guest, host)
			host.Stderr().Write([]byte("out"))
			b := make([]byte, 3)
			if _, err := io.ReadFull(guest.Stderr(), b); err != nil {
				t.Fatal(err)
			}
			c.end(r, host)
			rest, _ := io.ReadAll(guest.Stderr())
			if got := string(b) + string(rest); got != c.want {
				t.Errorf("the guest reads %q, want %q", got, c.want)
			}
		})
	}
}
