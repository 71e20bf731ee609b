package splice

import (
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A fakeLoad stalls since a given time until it is shed.
type fakeLoad struct {
	name  string
	since int64
	twin  *fakeLoad // the other flow of its channel
	shedN *[]string
}

func (l *fakeLoad) stalledSince() int64 { return l.since }

func (l *fakeLoad) shed() {
	*l.shedN = append(*l.shedN, l.name)
	l.since = 0
	if l.twin != nil {
		l.twin.since = 0
	}
}

func TestBudgetSheds(t *testing.T) {
	const s = int64(time.Second)
	now := 100 * s
	var shed []string
	b := newBudget(3 * perFlow)
	load := func(name string, since int64) *fakeLoad {
		l := &fakeLoad{name: name, since: since, shedN: &shed}
		b.add(l)
		return l
	}
	load("flows", 0)
	load("just now", now-s+1)
	load("oldest", 1)
	first, second := load("first twin", now-5*s), load("second twin", now-6*s)
	first.twin, second.twin = second, first
	b.sweep(now)
	if b.Stalled() != 3*perFlow || !b.Full() || len(shed) != 0 {
		t.Fatalf("%d bytes stalled, full %v, shed %v", b.Stalled(), b.Full(), shed)
	}
	newest := load("newest", now-2*s)
	b.sweep(now)
	if b.Stalled() != 3*perFlow || !b.Full() || !slices.Equal(shed, []string{"newest"}) {
		t.Fatalf("%d bytes stalled, full %v, shed %v", b.Stalled(), b.Full(), shed)
	}
	b.remove(newest)
	load("newer", now-3*s)
	load("new", now-4*s)
	load("the same time as it", now-4*s)
	b.sweep(now + s) // "just now" counts by now, as the newest of seven
	if b.Stalled() != 3*perFlow || len(shed) != 5 || shed[1] != "just now" || shed[2] != "newer" {
		t.Fatalf("%d bytes stalled, shed %v", b.Stalled(), shed)
	}

	b = newBudget(perFlow)
	first, second = load("first", now-2*s), load("second", now-2*s)
	first.twin, second.twin = second, first
	load("other", now-10*s)
	shed = nil
	b.sweep(now)
	if b.Stalled() != perFlow || len(shed) != 1 {
		t.Errorf("%d bytes stalled, shed %v: both flows of a channel end at once", b.Stalled(), shed)
	}
}

func TestBudgetWithoutBound(t *testing.T) {
	b := newBudget(0)
	var shed []string
	for range 100 {
		b.add(&fakeLoad{since: 1, shedN: &shed})
	}
	b.sweep(int64(time.Hour))
	if b.Full() || len(shed) != 0 || b.Stalled() != 100*perFlow {
		t.Errorf("full %v, shed %v, stalled %d", b.Full(), shed, b.Stalled())
	}
}

// stallBudget is a budget that the test sweeps. A flow that is stalled for good
// is told from a write that a busy machine takes its time for.
func stallBudget(flows int64) *Budget {
	b := newBudget(flows * perFlow)
	b.delay = 200 * time.Millisecond
	return b
}

func sweepUntil(t *testing.T, b *Budget, what string, ok func() bool) {
	t.Helper()
	waitFor(t, what, func() bool {
		b.sweep(clock())
		return ok()
	})
}

// isClosed looks whether CLOSE has come. No request is expected.
func isClosed(e end) bool {
	select {
	case <-e.reqs:
		return true
	default:
		return false
	}
}

// TestBudgetOfJoins: stalled channels are counted, new ones refused, the most
// recent ones closed, and other channels work on.
func TestBudgetOfJoins(t *testing.T) {
	b := stallBudget(2)
	r := newRig(t, &Hooks{Budget: b})
	var guests, hosts []end
	stall := func() {
		guest, host := r.session()
		start(t, guest, host)
		go host.Write(noise(3 * window)) // 2 MiB to the guest, 2 MiB in the gateway
		guests, hosts = append(guests, guest), append(hosts, host)
	}
	stall()
	sweepUntil(t, b, "one stall", func() bool { return b.Stalled() == perFlow && !b.Full() })
	stall()
	sweepUntil(t, b, "two stalls", func() bool { return b.Stalled() == 2*perFlow && b.Full() })
	if _, _, err := r.guest.OpenChannel("session", nil); err == nil || err.(*ssh.OpenChannelError).Reason != ssh.ResourceShortage {
		t.Errorf("open with a full budget: %v", err)
	}

	// The first channel flows again, so there is room for one other. Of the
	// three that stall then, the last is one too many.
	go io.Copy(io.Discard, guests[0])
	sweepUntil(t, b, "one stall", func() bool { return b.Stalled() == perFlow })
	stall()
	stall()
	sweepUntil(t, b, "one to be shed", func() bool { return isClosed(guests[2]) || isClosed(guests[3]) })
	if isClosed(guests[0]) || isClosed(guests[1]) {
		t.Error("an older channel was closed")
	}
	sweepUntil(t, b, "two stalls", func() bool { return b.Stalled() == 2*perFlow })
	for _, guest := range guests[1:] {
		go io.Copy(io.Discard, guest)
	}
	sweepUntil(t, b, "no stall", func() bool { return b.Stalled() == 0 })
	echo(t, r)
}

// TestBudgetInput: what a host does not read counts, too.
func TestBudgetInput(t *testing.T) {
	b := stallBudget(1)
	r := newRig(t, &Hooks{Budget: b})
	var guests, hosts []end
	for range 2 {
		guest, host := r.session()
		start(t, guest, host)
		go guest.Write(noise(3 * window))
		guests, hosts = append(guests, guest), append(hosts, host)
	}
	sweepUntil(t, b, "one to be shed", func() bool { return isClosed(hosts[0]) || isClosed(hosts[1]) })
	sweepUntil(t, b, "its guest to know", func() bool { return isClosed(guests[0]) || isClosed(guests[1]) })
}

// TestBudgetFreesMemory: what a shed channel held is let go of, although the
// write to a guest who reads nothing at all never returns.
func TestBudgetFreesMemory(t *testing.T) {
	b := stallBudget(1)
	r := newWireRig(t, &Hooks{Budget: b}, defaultLimits)
	defer r.close(t)
	const channels = 8
	hostSides := make([]uint32, channels)
	for i := range hostSides {
		r.guest.send(openMessage("session", uint32(i)))
		hostSides[i] = openedBy(t, r.host.next())
		r.host.send(confirmMessage(hostSides[i], uint32(i)))
		wantRecord(t, record(r.guest, "confirm"), "confirm")
	}
	before := heap()
	// From here on the guest reads nothing from its socket, and each channel's
	// window in the gateway fills up.
	for _, id := range hostSides {
		for range window / 32768 {
			r.host.send(dataMessage(id, make([]byte, 32768)))
		}
	}
	waitFor(t, "the gateway to hold it all", func() bool { return heap()-before > (channels-1)*perFlow })
	sweepUntil(t, b, "the memory to be freed", func() bool { return heap()-before < channels/2*perFlow })
	if b.Stalled() != perFlow {
		t.Errorf("%d bytes are stalled", b.Stalled())
	}
}

// heap returns the bytes in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBudgetRunsAndCloses with its own clock.
func TestBudgetRunsAndCloses(t *testing.T) {
	b := NewBudget(perFlow)
	r := newRig(t, &Hooks{Budget: b})
	guest, host := r.session()
	start(t, guest, host)
	go host.Write(noise(3 * window))
	waitFor(t, "a stall", func() bool { return b.Stalled() > 0 })
	b.Close()
	b.Close()
	guest.Close()
}
