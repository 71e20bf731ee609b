package splice

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// perFlow is what x/crypto holds for a channel's direction whose receiver does
// not read: its receive window, which is constant. Data and stderr share it.
const perFlow = 2 << 20

// sweepEvery is how often a Budget looks, and so how long a stall may go unseen.
const sweepEvery = time.Second

// A Budget bounds the bytes that stalled channels hold, for all joins of a
// gateway together. A channel's direction is stalled when it has been waiting
// for more than a second to pass one packet on; it counts as 2 MiB. While the
// budget is exceeded, the channels that stalled most recently are closed: so
// whoever starts to fill the gateway's memory does not push out others.
//
// What it cannot see: a receiver that takes one packet in less than a second
// holds the same memory. Bound the channels of a connection for that.
type Budget struct {
	bytes int64
	delay time.Duration // how long a flow must have been stalled to be counted
	used  atomic.Int64  // at the last sweep

	mu    sync.Mutex // guards loads
	loads map[load]struct{}

	stop     chan struct{}
	stopOnce sync.Once
	stopped  sync.WaitGroup
}

// A load is a flow.
type load interface {
	stalledSince() int64 // in terms of clock; zero: it flows
	shed()               // does not block
}

// NewBudget returns a budget of so many bytes and starts the goroutine that
// keeps it. Zero or less means no bound. Close ends it.
func NewBudget(bytes int64) *Budget {
	ticker := time.NewTicker(sweepEvery)
	b := newBudget(bytes)
	b.stopped.Go(func() {
		defer ticker.Stop()
		b.keep(ticker.C, clock)
	})
	return b
}

func newBudget(bytes int64) *Budget {
	return &Budget{bytes: bytes, delay: sweepEvery, loads: make(map[load]struct{}), stop: make(chan struct{})}
}

// Full reports whether one more stalled direction would exceed the budget.
func (b *Budget) Full() bool {
	return b.bytes > 0 && b.used.Load()+perFlow > b.bytes
}

// Stalled returns the bytes that stalled channels held at the last look.
func (b *Budget) Stalled() int64 { return b.used.Load() }

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
		case <-b.stop:
			return
		}
	}
}

// sweep counts what is stalled and sheds what is too much.
func (b *Budget) sweep(now int64) {
	stalled := b.stalled(now)
	used := int64(len(stalled)) * perFlow
	for _, s := range stalled {
		if b.bytes <= 0 || used <= b.bytes {
			break
		}
		if s.load.stalledSince() != 0 { // else its channel's other flow was shed
			s.load.shed()
		}
		used -= perFlow
	}
	b.used.Store(used)
}

type stall struct {
	load  load
	since int64
}

// stalled returns what is stalled, the most recent first.
func (b *Budget) stalled(now int64) []stall {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []stall
	for l := range b.loads {
		if since := l.stalledSince(); since > 0 && now-since >= int64(b.delay) {
			all = append(all, stall{l, since})
		}
	}
	slices.SortFunc(all, func(x, y stall) int { return cmp.Compare(y.since, x.since) })
	return all
}

func (b *Budget) add(l load) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loads[l] = struct{}{}
}

func (b *Budget) remove(l load) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.loads, l)
}
