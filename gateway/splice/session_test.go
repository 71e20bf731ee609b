package splice

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/crypto/ssh"
)

// start has the guest run a program on the host, as OpenSSH does: stdin right
// behind exec.
func start(t *testing.T, guest, host end) {
	t.Helper()
	granted := make(chan bool, 1)
	go func() {
		ok, err := guest.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"cat"}))
		granted <- ok && err == nil
	}()
	host.request(t, "exec").Reply(true, nil)
	if !await(t, granted, "the reply to exec") {
		t.Fatal("exec was refused")
	}
}

func TestSession(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)

	in := bytes.Repeat([]byte("in"), 1<<20)
	go func() {
		guest.Write(in)
		guest.CloseWrite()
	}()
	got, err := io.ReadAll(host)
	if err != nil || !bytes.Equal(got, in) {
		t.Fatalf("host read %d bytes of %d, %v", len(got), len(in), err)
	}
	out, errs := bytes.Repeat([]byte("out"), 1<<20), bytes.Repeat([]byte("err"), 1<<20)
	go func() {
		host.Write(out)
		host.Stderr().Write(errs)
		host.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{7}))
		host.Close()
	}()
	stderr := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(guest.Stderr())
		stderr <- b
	}()
	got, err = io.ReadAll(guest)
	if err != nil || !bytes.Equal(got, out) {
		t.Fatalf("guest read %d bytes of %d, %v", len(got), len(out), err)
	}
	if got := await(t, stderr, "stderr"); !bytes.Equal(got, errs) {
		t.Fatalf("guest read %d bytes of stderr of %d", len(got), len(errs))
	}
	if p := guest.request(t, "exit-status").Payload; !bytes.Equal(p, []byte{0, 0, 0, 7}) {
		t.Errorf("exit-status %x", p)
	}
	guest.closed(t)
}
