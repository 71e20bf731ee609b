package splice

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/sshwire"
)

// A fakeLoad stalls since a given time until it is shed.
type fakeLoad struct {
	name  string
	whose string
	since int64
	moved uint64
	twin  *fakeLoad // the other flow of its channel
	from  *Meter
	shedN *[]string
}

func (l *fakeLoad) owner() string       { return l.whose }
func (l *fakeLoad) meter() *Meter       { return l.from }
func (l *fakeLoad) passed() uint64      { return l.moved }
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
	load("just now", now-s/20)
	load("oldest", 1)
	first, second := load("first twin", now-5*s), load("second twin", now-6*s)
	first.twin, second.twin = second, first
	b.sweep(now)
	if b.Stalled() != 3*perFlow || !b.Full("") || len(shed) != 0 {
		t.Fatalf("%d bytes stalled, full %v, shed %v", b.Stalled(), b.Full(""), shed)
	}
	newest := load("newest", now-2*s)
	b.sweep(now)
	if b.Stalled() != 3*perFlow || !b.Full("") || !slices.Equal(shed, []string{"newest"}) {
		t.Fatalf("%d bytes stalled, full %v, shed %v", b.Stalled(), b.Full(""), shed)
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

// TestBudgetShedsByOwner: whoever has most stalled loses first, however early it
// came, until all have the same; and is the one who may stall nothing more.
func TestBudgetShedsByOwner(t *testing.T) {
	const s = int64(time.Second)
	b := newBudget(6 * perFlow)
	var shed []string
	stall := func(owner string, since ...int64) {
		for _, at := range since {
			b.add(&fakeLoad{name: owner, whose: owner, since: at * s, shedN: &shed})
		}
	}
	stall("hog", 1, 2, 3, 4, 5, 6)
	b.sweep(100 * s)
	if len(shed) != 0 || !b.Full("hog") || b.Full("alice") {
		t.Fatalf("shed %v, the hog may stall more: %v, alice may not: %v", shed, !b.Full("hog"), b.Full("alice"))
	}
	stall("alice", 50)
	b.sweep(100 * s)
	if !slices.Equal(shed, []string{"hog"}) {
		t.Fatalf("shed %v", shed)
	}
	stall("bob", 60, 61, 62)
	stall("carol", 70)
	b.sweep(100 * s) // ten: 5 of the hog's, 3 of bob's, and one each of the others
	if want := []string{"hog", "hog", "hog", "bob", "hog"}; !slices.Equal(shed, want) {
		t.Fatalf("shed %v, want %v", shed, want)
	}
	if b.Stalled() != 6*perFlow || b.Full("dave") || !b.Full("hog") {
		t.Errorf("%d bytes are stalled; full for a newcomer: %v, for the hog: %v", b.Stalled(), b.Full("dave"), b.Full("hog"))
	}
}

// TestTrickleIsAStall: who takes a packet now and then holds as much as who takes
// none.
func TestTrickleIsAStall(t *testing.T) {
	const s = int64(time.Second)
	b := newBudget(0)
	trickles, flows, reads := &fakeLoad{}, &fakeLoad{}, &fakeLoad{}
	b.add(trickles)
	b.add(flows)
	b.add(reads)
	look := func(now int64, want int64) {
		t.Helper()
		trickles.since, flows.since = now-s/2, now-s/2
		trickles.moved += slow
		flows.moved += slow + 1
		b.sweep(now)
		if b.Stalled() != want*perFlow {
			t.Errorf("after %d s %d are stalled, want %d", now/s, b.Stalled()/perFlow, want)
		}
	}
	reads.since = 1
	look(10*s, 1)
	for now := 11 * s; now < 20*s; now += s {
		look(now, 2)
	}
	reads.since = 0
	look(20*s, 1)
	reads.since = 20*s + s/2
	look(21*s, 1)
	look(22*s, 2)
}

// TestBudgetIsHasty when more than fits begins to wait: to count it as stalled only
// after a second would be too late.
func TestBudgetIsHasty(t *testing.T) {
	const s = int64(time.Second)
	b := newBudget(4 * perFlow)
	var shed []string
	for i := range int64(5) {
		b.sweep(100 * s)
		if b.Stalled() != 0 || len(shed) != 0 {
			t.Fatalf("with %d that wait, %d are stalled, and shed %v", i, b.Stalled()/perFlow, shed)
		}
		b.add(&fakeLoad{name: fmt.Sprint(i), since: 100*s - s/2 + i, shedN: &shed})
	}
	b.sweep(100 * s)
	if b.Stalled() != 4*perFlow || !slices.Equal(shed, []string{"4"}) {
		t.Errorf("%d are stalled, shed %v", b.Stalled()/perFlow, shed)
	}
}

func TestBudgetWithoutBound(t *testing.T) {
	b := newBudget(0)
	var shed []string
	for range 100 {
		b.add(&fakeLoad{since: 1, shedN: &shed})
	}
	b.sweep(int64(time.Hour))
	if b.Full("") || len(shed) != 0 || b.Stalled() != 100*perFlow {
		t.Errorf("full %v, shed %v, stalled %d", b.Full(""), shed, b.Stalled())
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
	sweepUntil(t, b, "one stall", func() bool { return b.Stalled() == perFlow && !b.Full("") })
	stall()
	sweepUntil(t, b, "two stalls", func() bool { return b.Stalled() == 2*perFlow && b.Full("") })
	if _, _, err := r.guest.OpenChannel("session", nil); err == nil || err.(*ssh.OpenChannelError).Reason != ssh.ResourceShortage {
		t.Errorf("open with a full budget: %v", err)
	}

	// The first channel flows again, so there is room for one other. Of the
	// three that stall then, the last is one too many.
	if _, err := io.CopyN(io.Discard, guests[0], 3*window); err != nil {
		t.Fatal(err)
	}
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

// TestBudgetSparesOthers: a guest whose one channel stalls keeps it, and opens
// others, while another guest fills the budget over and over.
func TestBudgetSparesOthers(t *testing.T) {
	b := stallBudget(4)
	hog, other := newRig(t, &Hooks{Budget: b, Owner: "hog"}), newRig(t, &Hooks{Budget: b, Owner: "other"})
	stall := func(r *rig) end {
		guest, host := r.session()
		start(t, guest, host)
		go host.Write(noise(3 * window))
		return guest
	}
	for range 4 {
		stall(hog)
	}
	sweepUntil(t, b, "the hog to fill the budget", func() bool { return b.Full("hog") })
	kept := stall(other)
	sweepUntil(t, b, "the other's stall to count", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.shares["other"] == perFlow && b.shares["hog"] == 3*perFlow
	})
	echo(t, other)
	if _, _, err := hog.guest.OpenChannel("session", nil); err == nil {
		t.Error("the hog opened one more")
	}
	if isClosed(kept) {
		t.Error("the other's channel was closed")
	}
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
	// Whatever else lives in the process would be measured, too: what other tests
	// let go of meanwhile outweighs what this one fills.
	if !isAlone(t) {
		return
	}
	b := stallBudget(1)
	r := newWireRigThrough(t, &Hooks{Budget: b}, defaultLimits, smallSocket)
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
	sweepUntil(t, b, "one to be left, which may have got a packet through", func() bool { return b.Stalled() == perFlow })
}

// TestBudgetOfSmallPackets: a window of single bytes takes fifty times the memory
// of one of large packets, and is counted so. When nobody waits any more, nothing is.
func TestBudgetOfSmallPackets(t *testing.T) {
	b := stallBudget(2)
	r := &wireRig{done: make(chan struct{})}
	defer r.close(t)
	var meter *Meter
	guest, joinedGuest := connectPeerThrough(t, true, smallSocket)
	host, joinedHost := connectPeerThrough(t, false, func(c net.Conn) net.Conn { meter = NewMeter(c); return meter })
	joinedHost.Meter = meter
	r.guest, r.host = guest, host
	go func() {
		defer close(r.done)
		joinWith(joinedGuest, joinedHost, &Hooks{Budget: b}, defaultLimits)
	}()
	_, hostSide := r.openWire(t)
	const size = window / 2
	for sent := 0; sent < size; sent += 30000 { // more than sockets hold
		r.host.send(dataMessage(hostSide, make([]byte, 30000)))
	}
	sweepUntil(t, b, "the stall", func() bool { return b.Stalled() > 0 })
	if b.Stalled() != perFlow {
		t.Errorf("half a window counts as %d bytes", b.Stalled())
	}
	single := slices.Repeat([][]byte{dataMessage(hostSide, []byte("x"))}, 1000)
	for range 75 {
		r.host.send(single...)
	}
	sweepUntil(t, b, "the channel to be shed", func() bool { return b.Stalled() == 0 })
	record(r.host, "CLOSE")
}

// TestBudgetOfStalledRekey: a guest who begins to change keys and never goes on has
// everything to it wait. What waits is counted, and the most recent is shed.
func TestBudgetOfStalledRekey(t *testing.T) {
	b := stallBudget(1)
	r := newWireRig(t, &Hooks{Budget: b}, defaultLimits)
	defer r.close(t)
	const channels = 4
	hostSides := make([]uint32, channels)
	for i := range hostSides {
		r.guest.send(openMessage("session", uint32(i)))
		hostSides[i] = openedBy(t, r.host.next())
		r.host.send(confirmMessage(hostSides[i], uint32(i)))
		wantRecord(t, record(r.guest, "confirm"), "confirm")
	}
	r.guest.send(sshwire.KexInit())
	const kexInit = 20
	for describe(r.guest.next()) != fmt.Sprint("message ", kexInit) {
	}
	for _, id := range hostSides {
		for range window / 32768 {
			r.host.send(dataMessage(id, make([]byte, 32768)))
		}
	}
	sweepUntil(t, b, "the budget to be in use", func() bool { return b.Stalled() == perFlow })
	record(r.host, "CLOSE")
}

// smallSocket makes the machine hold little of what is written to c: it may take
// megabytes otherwise, which the gateway does not hold then.
func smallSocket(c net.Conn) net.Conn {
	c.(*net.TCPConn).SetWriteBuffer(32 << 10)
	return c
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
	pressed := make(chan bool, 2)
	b := NewBudget(perFlow, func(is bool) { pressed <- is })
	r := newRig(t, &Hooks{Budget: b})
	guest, host := r.session()
	start(t, guest, host)
	go host.Write(noise(3 * window))
	waitFor(t, "a stall", func() bool { return b.Stalled() > 0 })
	if !await(t, pressed, "memory to be short") {
		t.Error("memory is short with a full budget")
	}
	go io.Copy(io.Discard, guest)
	if await(t, pressed, "memory not to be short") {
		t.Error("memory is not short with an empty budget")
	}
	b.Close()
	b.Close()
	guest.Close()
}
