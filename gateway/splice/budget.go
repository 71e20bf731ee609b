package splice

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// perFlow is what x/crypto holds for a channel's direction whose receiver does
// not read: its receive window, which is constant. Data and stderr share it.
const perFlow = 2 << 20

// sweepEvery is how often a Budget looks. In the time between, memory fills as fast
// as the network is.
const sweepEvery = 100 * time.Millisecond

// stallDelay is for how long a direction waits that is stalled: in less, many a
// healthy one takes a breath.
const stallDelay = time.Second

// slow is how many packets (of 32 KiB at most) a direction may pass on in a second
// and still be called stalled when it waits at both ends of that second: its
// window holds as much as if it stood still.
const slow = 8

// A Budget bounds the bytes that stalled channels hold, for all joins of a
// gateway together. A channel's direction is stalled when it has been waiting
// for more than a second to pass one packet on, or trickles; it counts as 2 MiB, or
// as its part of what its connection holds when a Meter says that this is more.
// When more than fits has been waiting for a tenth of that, it is not waited for,
// and neither is one that holds more than twice its window.
// While the budget is exceeded, whoever has most stalled loses a channel first,
// and of its channels the one that stalled last: so nobody who fills the gateway's
// memory pushes out others, were it over a hundred connections. An owner (see
// Hooks) with one stall keeps it as long as there is room for one of everybody's.
type Budget struct {
	bytes int64
	delay time.Duration // how long a flow must have been stalled to be counted

	pressed   func(bool) // may be nil
	isPressed bool       // what it was told last; the keeper's

	mu     sync.Mutex // guards what follows
	loads  map[load]*mark
	used   int64            // at the last sweep
	shares map[string]int64 // of it, by owner

	stop     chan struct{}
	stopOnce sync.Once
	stopped  sync.WaitGroup
}

// A load is a flow.
type load interface {
	owner() string
	meter() *Meter       // of the connection that it comes from, or nil
	stalledSince() int64 // in terms of clock; zero: it flows
	passed() uint64      // packets
	shed()               // does not block
}

// A mark is what a Budget remembers of a load that was waiting when it looked.
type mark struct {
	since  int64  // as when it has been stalled, slow packets notwithstanding; zero: it was not waiting
	looked int64  // when passed was noted
	passed uint64 // packets
}

// look returns since when l has been stalled, or zero.
func (m *mark) look(l load, now, delay int64) int64 {
	since, passed := l.stalledSince(), l.passed()
	switch {
	case since <= 0:
		*m = mark{}
	case m.since == 0, now-m.looked >= delay && passed-m.passed > slow:
		*m = mark{since: since, looked: now, passed: passed}
	case now-m.looked >= delay:
		m.looked, m.passed = now, passed
	}
	return m.since
}

// NewBudget returns a budget of so many bytes and starts the goroutine that
// keeps it. Zero or less means no bound. Close ends it. pressed, which may be nil, is
// called on that goroutine whenever half of the budget is in use, and when it is no
// longer.
func NewBudget(bytes int64, pressed func(bool)) *Budget {
	ticker := time.NewTicker(sweepEvery)
	b := newBudget(bytes)
	b.pressed = pressed
	b.stopped.Go(func() {
		defer ticker.Stop()
		b.keep(ticker.C, clock)
	})
	return b
}

func newBudget(bytes int64) *Budget {
	return &Budget{bytes: bytes, delay: stallDelay, loads: make(map[load]*mark), stop: make(chan struct{})}
}

// Full reports whether an owner may stall nothing more: one more direction would
// exceed the budget, and the owner's part of it is not smaller than it would be if
// all who have something stalled had the same.
func (b *Budget) Full(owner string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes <= 0 || b.used+perFlow <= b.bytes {
		return false
	}
	mine, owners := b.shares[owner], int64(len(b.shares))
	if mine == 0 {
		owners++
	}
	return mine+perFlow > b.bytes/owners
}

// Stalled returns the bytes that stalled channels held at the last look.
func (b *Budget) Stalled() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Close ends the budget's goroutine and waits for it. Joins that still use the
// budget go on, uncounted.
func (b *Budget) Close() error {
	b.stopOnce.Do(func() { close(b.stop) })
	b.stopped.Wait()
	return nil
}

// keep sweeps at each tick until the budget is closed.
func (b *Budget) keep(tick <-chan time.Time, now func() int64) {
	for {
		select {
		case <-tick:
			b.sweep(now())
			b.press()
		case <-b.stop:
			return
		}
	}
}

// press tells of a change.
func (b *Budget) press() {
	is := b.bytes > 0 && b.Stalled() >= b.bytes/2
	if is != b.isPressed && b.pressed != nil {
		b.pressed(is)
	}
	b.isPressed = is
}

// sweep counts what is stalled and sheds what is too much.
func (b *Budget) sweep(now int64) {
	stalled := b.stalled(now)
	used := sum(stalled)
	shares := make(map[string]int64)
	for _, s := range stalled {
		if b.bytes > 0 && used > b.bytes {
			if s.load.stalledSince() != 0 { // else its channel's other flow was shed
				s.load.shed()
			}
			used -= s.bytes
			continue
		}
		shares[s.load.owner()] += s.bytes
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used, b.shares = used, shares
}

type stall struct {
	load  load
	since int64
	bytes int64
	rank  int64 // what its owner's older stalls and this one hold
}

// isHeavy says that small packets fill its window many times over.
func (s stall) isHeavy() bool { return s.bytes > 2*perFlow }

func sum(stalls []stall) (bytes int64) {
	for _, s := range stalls {
		bytes += s.bytes
	}
	return bytes
}

// stalled returns what is stalled, in the order in which it is to be shed: by the
// bytes that it and its owner's older stalls hold, which is the same as to take one
// from whoever has most, time and again; of the same number the most recent first.
func (b *Budget) stalled(now int64) []stall {
	all := b.waiting(now)
	patient := slices.DeleteFunc(slices.Clone(all), func(s stall) bool {
		return now-s.since < int64(b.delay) && !s.isHeavy()
	})
	if b.bytes <= 0 || sum(all) <= b.bytes {
		all = patient
	}
	slices.SortFunc(all, func(x, y stall) int { return cmp.Compare(x.since, y.since) })
	seen := make(map[string]int64)
	for i := range all {
		owner := all[i].load.owner()
		seen[owner] += all[i].bytes
		all[i].rank = seen[owner]
	}
	slices.SortFunc(all, func(x, y stall) int {
		return cmp.Or(cmp.Compare(y.rank, x.rank), cmp.Compare(y.since, x.since))
	})
	return all
}

// waiting returns what has been waiting for a tenth of the delay or more, or is
// heavy.
func (b *Budget) waiting(now int64) []stall {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []stall
	waiters := make(map[*Meter]int64) // by the connection that it comes from
	for l, m := range b.loads {
		since, meter := m.look(l, now, int64(b.delay)), l.meter()
		waiters[meter] += 0
		if since > 0 {
			waiters[meter]++
			all = append(all, stall{load: l, since: since})
		}
	}
	for meter, n := range waiters {
		if n == 0 && meter != nil {
			meter.rest()
		}
	}
	for i := range all {
		meter := all[i].load.meter()
		all[i].bytes = max(perFlow, meter.held()/waiters[meter])
	}
	return slices.DeleteFunc(all, func(s stall) bool { return now-s.since < int64(b.delay)/10 && !s.isHeavy() })
}

func (b *Budget) add(l load) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loads[l] = new(mark)
}

func (b *Budget) remove(l load) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.loads, l)
}
