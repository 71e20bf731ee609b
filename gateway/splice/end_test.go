package splice

import (
	"bytes"
	"io"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

const window = 2 << 20 // what x/crypto takes without being read

// shortened are limits for tests that wait for one of them to pass.
func shortened(change func(*limits)) limits {
	l := defaultLimits
	change(&l)
	return l
}

// TestHostLeavesWithUnreadOutput: output, stderr and status that were received
// before CLOSE reach a guest who reads them much later.
func TestHostLeavesWithUnreadOutput(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	out, errs := noise(window), noise(window/2)
	if _, err := host.Write(out); err != nil { // fits into the join's window
		t.Fatal(err)
	}
	host.Stderr().Write(errs)
	host.SendRequest("exit-status", false, []byte{0, 0, 0, 7})
	host.CloseWrite()
	host.Close()
	host.closed(t) // the gateway has it all

	if got, err := io.ReadAll(guest); err != nil || !bytes.Equal(got, out) {
		t.Errorf("guest read %d bytes of %d, %v", len(got), len(out), err)
	}
	if got, err := io.ReadAll(guest.Stderr()); err != nil || !bytes.Equal(got, errs) {
		t.Errorf("guest read %d bytes of stderr of %d, %v", len(got), len(errs), err)
	}
	guest.request(t, "exit-status")
	guest.closed(t)
}

// TestHostConnectionLost: the same when the host's connection ends.
func TestHostConnectionLost(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	out := noise(window)
	host.Write(out)
	host.SendRequest("keepalive@openssh.com", false, nil)
	guest.request(t, "keepalive@openssh.com") // so all was received
	r.host.Close()
	if got, err := io.ReadAll(guest); err != nil || !bytes.Equal(got, out) {
		t.Errorf("guest read %d bytes of %d, %v", len(got), len(out), err)
	}
	guest.closed(t)
	await(t, r.done, "Join to return")
}

// TestGuestLeavesWithUnreadInput: the host gets what was received, if it reads.
func TestGuestLeavesWithUnreadInput(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	in := noise(window)
	guest.Write(in)
	guest.Close()
	guest.closed(t)
	if got, err := io.ReadAll(host); err != nil || !bytes.Equal(got, in) {
		t.Errorf("host read %d bytes of %d, %v", len(got), len(in), err)
	}
	host.closed(t)
}

// TestGuestLeavesHostDoesNotRead: a host that does not read is told of the
// guest's CLOSE all the same, and what it still sends stalls nobody.
func TestGuestLeavesHostDoesNotRead(t *testing.T) {
	r := newLimitedRig(t, nil, shortened(func(l *limits) { l.input = 50 * time.Millisecond }))
	guest, host := r.session()
	start(t, guest, host)
	go guest.Write(noise(3 * window)) // more than fits
	host.Write(noise(window))
	for range 50 { // more than x/crypto's queue has room for
		host.SendRequest("noise@stagedoor", false, nil)
	}
	for range 50 {
		guest.request(t, "noise@stagedoor")
	}
	guest.Close()
	host.closed(t)
	echo(t, r)
}

// TestGuestClosesForward: of a forwarded connection all is delivered, however
// long the host takes to read it.
func TestGuestClosesForward(t *testing.T) {
	r := newLimitedRig(t, nil, shortened(func(l *limits) { l.input = time.Millisecond }))
	for _, from := range []Side{Guest, Host} {
		guest, host := r.open(from, "forward@stagedoor")
		if from == Host {
			guest, host = host, guest
		}
		in := noise(window)
		guest.Write(in)
		guest.CloseWrite()
		guest.Close()
		guest.closed(t)
		for range 20 {
			echo(t, r)
		}
		if got, err := io.ReadAll(host); err != nil || !bytes.Equal(got, in) {
			t.Errorf("host read %d bytes of %d, %v", len(got), len(in), err)
		}
		host.closed(t)
	}
}

// echo proves that both connections still work.
func echo(t testing.TB, r *rig) {
	t.Helper()
	guest, host := r.open(Guest, "echo@stagedoor")
	go func() {
		io.Copy(host, host)
		host.Close()
	}()
	guest.Write([]byte("hello"))
	guest.CloseWrite()
	read := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(guest)
		read <- string(b)
	}()
	if got := await(t, read, "the echo"); got != "hello" {
		t.Fatalf("echo is %q", got)
	}
	guest.closed(t)
	host.closed(t)
}

// TestGuestConnectionLost: input that was received is delivered, the host's
// channels and its connection are closed.
func TestGuestConnectionLost(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	in := noise(window)
	guest.Write(in)
	guest.SendRequest("signal", false, nil)
	host.request(t, "signal")
	r.guest.Close()
	if got, err := io.ReadAll(host); err != nil || !bytes.Equal(got, in) {
		t.Errorf("host read %d bytes of %d, %v", len(got), len(in), err)
	}
	host.closed(t)
	await(t, r.done, "Join to return")
	if err := r.host.Wait(); err == nil {
		t.Error("the host's connection is open")
	}
}

// TestEndWithStalledChannels: neither a guest who reads nothing nor a host that
// reads nothing holds Join up.
func TestEndWithStalledChannels(t *testing.T) {
	for _, leaver := range []Side{Guest, Host} {
		t.Run(leaver.String(), func(t *testing.T) {
			l := shortened(func(l *limits) {
				l.input, l.hostEnd, l.guestEnd = 50*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
			})
			r := newLimitedRig(t, nil, l)
			for range 5 {
				guest, host := r.session()
				start(t, guest, host)
				go guest.Write(noise(3 * window))
				go host.Write(noise(3 * window))
				go host.Stderr().Write(noise(3 * window))
			}
			if leaver == Guest {
				r.guest.Close()
			} else {
				r.host.Close()
			}
			await(t, r.done, "Join to return")
		})
	}
}

// TestHalfClose: other channels than sessions pass EOF on at once, both ways.
func TestHalfClose(t *testing.T) {
	r := newRig(t, nil)
	for _, from := range []Side{Guest, Host} {
		near, far := r.open(from, "forward@stagedoor")
		for _, e := range []struct{ from, to end }{{near, far}, {far, near}} {
			e.from.Write([]byte("all"))
			e.from.CloseWrite()
			if got, err := io.ReadAll(e.to); err != nil || string(got) != "all" {
				t.Errorf("read %q, %v", got, err)
			}
		}
		near.Close()
		far.closed(t)
		near.closed(t)
	}
}

// TestCloseWithoutStatus: a host may close a session without a word.
func TestCloseWithoutStatus(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	host.Close()
	guest.closed(t)
}

// TestSilentHolder: when output stays open and nothing comes, the status is
// passed on all the same, and late output after it.
func TestSilentHolder(t *testing.T) {
	r := newLimitedRig(t, nil, shortened(func(l *limits) { l.exit = 50 * time.Millisecond }))
	guest, host := r.session()
	start(t, guest, host)
	host.Write([]byte("early"))
	host.SendRequest("exit-status", false, []byte{0, 0, 0, 7})
	io.ReadFull(guest, make([]byte, 5))
	guest.request(t, "exit-status")
	host.Write([]byte("late"))
	host.Close()
	if got, err := io.ReadAll(guest); err != nil || string(got) != "late" {
		t.Errorf("guest read %q, %v", got, err)
	}
	guest.closed(t)
}

// TestStatusBehindSlowGuest: as long as there is output to pass on, the status
// waits however long the guest takes.
func TestStatusBehindSlowGuest(t *testing.T) {
	r := newLimitedRig(t, nil, shortened(func(l *limits) { l.exit = 20 * time.Millisecond }))
	guest, host := r.session()
	start(t, guest, host)
	const size = window + window/2
	if _, err := host.Write(noise(size)); err != nil {
		t.Fatal(err)
	}
	host.SendRequest("exit-status", false, []byte{0, 0, 0, 7})
	// The gateway holds what exceeds the guest's window, and the status. Another
	// channel works while l.exit passes many times.
	for began := time.Now(); time.Since(began) < 400*time.Millisecond; {
		echo(t, r)
	}
	select {
	case q := <-guest.reqs:
		t.Fatalf("%v ahead of the output", q)
	default:
	}
	if n, err := io.CopyN(io.Discard, guest, size); err != nil {
		t.Errorf("guest read %d bytes, %v", n, err)
	}
	guest.request(t, "exit-status")
	host.Close()
	guest.closed(t)
}

// TestUnansweredRequestOfClosedHost: a guest who does not answer a request of a
// host that has closed is closed, too, when it has all output.
func TestUnansweredRequestOfClosedHost(t *testing.T) {
	r := newLimitedRig(t, nil, shortened(func(l *limits) { l.reply = time.Millisecond }))
	guest, host := r.session()
	start(t, guest, host)
	go host.SendRequest("keepalive@openssh.com", true, nil)
	guest.request(t, "keepalive@openssh.com")
	host.Write([]byte("output"))
	host.Close()
	if got, err := io.ReadAll(guest); err != nil || string(got) != "output" {
		t.Errorf("guest read %q, %v", got, err)
	}
	guest.closed(t)
}

// TestExitSignalWithReply: a request that wants a reply is never held.
func TestExitSignalWithReply(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	replied := make(chan bool, 1)
	go func() {
		ok, _ := host.SendRequest("exit-signal", true, ssh.Marshal(struct{ Signal string }{"KILL"}))
		replied <- ok
	}()
	guest.request(t, "exit-signal").Reply(true, nil)
	if !await(t, replied, "the reply") {
		t.Error("the guest's reply was lost")
	}
}
