package splice

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestFloodWithoutReplies: window changes and signals stall nothing, however many
// there are; the last of each arrives.
func TestFloodWithoutReplies(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	const n = 20_000
	go func() {
		for range n {
			guest.SendRequest("window-change", false, []byte("small"))
			guest.SendRequest("signal", false, []byte("INT"))
		}
		guest.SendRequest("signal", false, []byte("TERM"))
		guest.SendRequest("window-change", false, []byte("last"))
		guest.CloseWrite()
		guest.Close()
	}()
	go io.Copy(io.Discard, host)
	last := make(map[string]string)
	for q := range host.reqs {
		last[q.Type] = string(q.Payload)
	}
	if last["window-change"] != "last" || last["signal"] != "TERM" {
		t.Errorf("the last requests were %v", last)
	}
	host.Close()
	echo(t, r)
}

func TestQueueCoalesces(t *testing.T) {
	q := requests{maxCount: 5, maxBytes: 100}
	push := func(kind, payload string) bool {
		return q.push(&ssh.Request{Type: kind, Payload: []byte(payload)})
	}
	for range 100 {
		if !push("window-change", "size") || !push("signal", "INT") {
			t.Fatal("the queue is full of repetitions")
		}
	}
	push("signal", "TERM")
	push("exec", "sees the size so far")
	push("window-change", "new")
	if !push("window-change", "last size") || push("signal", "INT") {
		t.Error("the queue should hold five")
	}
	var got []string
	for !q.empty() {
		r := q.pop()
		got = append(got, r.Type+" "+string(r.Payload))
	}
	const want = "window-change size, signal INT, signal TERM, exec sees the size so far, window-change last size"
	if s := strings.Join(got, ", "); s != want || q.bytes != 0 {
		t.Errorf("queue: %s, %d bytes left", s, q.bytes)
	}
}

func TestQueueBytes(t *testing.T) {
	q := requests{maxCount: 10, maxBytes: 100}
	long := &ssh.Request{Payload: make([]byte, 1000)}
	if !q.push(long) {
		t.Error("a request that is alone must pass, however long")
	}
	if q.push(&ssh.Request{Payload: []byte("x")}) {
		t.Error("the queue took more than its bytes")
	}
	q.pop()
	if !q.push(long) {
		t.Error("the queue did not recover")
	}
}

// silence makes a host that accepts channels and answers no request.
func silence(r *rig) {
	go func() {
		for range r.host.Requests {
		}
	}()
	go func() {
		for nc := range r.host.Channels {
			ch, reqs, err := nc.Accept()
			if err != nil {
				return
			}
			go func() {
				for range reqs {
				}
				ch.Close()
			}()
		}
	}()
}

// TestFloodOfChannelRequests: a host that never answers costs the guest who
// keeps asking the channel, and no more.
func TestFloodOfChannelRequests(t *testing.T) {
	r := newRig(t, nil)
	silence(r)
	guest, reqs, err := r.guest.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := guest.SendRequest("exec", true, nil); !errors.Is(err, io.EOF) {
			t.Errorf("the first request: %v, want EOF", err)
		}
	})
	for {
		// Wants no reply, but is behind one that does.
		if _, err := guest.SendRequest("env", false, nil); err != nil {
			break
		}
	}
	end{guest, reqs}.closed(t)
	wg.Wait()
	ok := make(chan bool, 1)
	go func() {
		ch, reqs, err := r.guest.OpenChannel("session", nil)
		ok <- err == nil
		go ssh.DiscardRequests(reqs)
		ch.Close()
	}()
	if !await(t, ok, "another channel") {
		t.Error("no other channel can be opened")
	}
}

// TestFloodOfGlobals: for global requests it costs the connection.
func TestFloodOfGlobals(t *testing.T) {
	r := newWireRig(t, nil, defaultLimits)
	go func() {
		for range 10 {
			r.guest.send(global("tcpip-forward", true, "first"))
			for range defaultLimits.requests {
				if r.guest.send(global("x@stagedoor", false, "")) != nil {
					return
				}
			}
		}
	}()
	await(t, r.done, "Join to return")
	r.close(t)
}

// TestFloodOfOpens: what the host does not answer is refused beyond a number,
// and costs the connection when not even refusals get through.
func TestFloodOfOpens(t *testing.T) {
	l := shortened(func(l *limits) { l.opens, l.guestEnd = 10, 50*time.Millisecond })
	r := newWireRig(t, nil, l)
	for id := range uint32(10) {
		r.guest.send(openMessage("direct-tcpip", id))
	}
	for id := range uint32(100) {
		r.guest.send(openMessage("direct-tcpip", 10+id))
		wantRecord(t, record(r.guest, "open failure"), "open failure")
	}
	open := r.host.next()
	r.host.send(confirmMessage(openedBy(t, open), 0))
	wantRecord(t, record(r.guest, "confirm"), "confirm")

	for id := uint32(1000); r.guest.send(openMessage("direct-tcpip", id)) == nil; id++ {
	}
	await(t, r.done, "Join to return")
	r.close(t)
}

// TestFloodFromHost: a host's flood of requests to a guest who answers none
// closes the channel; another one works on.
func TestFloodFromHost(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	go func() {
		for range guest.reqs {
		}
		guest.Close()
	}()
	go host.SendRequest("keepalive@openssh.com", true, nil)
	for {
		if _, err := host.SendRequest("noise@stagedoor", false, make([]byte, 10_000)); err != nil {
			break
		}
	}
	host.closed(t)
	echo(t, r)
}

// TestFloodOfData: 20 sessions whose programs write and whose guest reads from
// one only: that one is not slower for it.
func TestFloodOfData(t *testing.T) {
	r := newRig(t, nil)
	for range 20 {
		guest, host := r.session()
		start(t, guest, host)
		go host.Write(noise(2 * window))
	}
	for range 10 {
		echo(t, r)
	}
}

// TestFloodOfExitStatuses: only so many are kept for later.
func TestFloodOfExitStatuses(t *testing.T) {
	r := newRig(t, nil)
	guest, host := r.session()
	start(t, guest, host)
	go io.Copy(io.Discard, guest)
	go func() {
		for range 100 {
			host.SendRequest("exit-status", false, []byte{0, 0, 0, 7})
		}
		host.Close()
	}()
	n := 0
	for q := range guest.reqs {
		if q.Type == "exit-status" {
			n++
		}
	}
	if n != 100 {
		t.Errorf("%d of 100 arrived", n)
	}
}
