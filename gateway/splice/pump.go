package splice

import (
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A pump copies one stream of a flow: its data, or its stderr.
type pump struct {
	f        *flow
	isStderr bool
	src      io.Reader
	dst      io.Writer

	chunks atomic.Uint64 // passed on

	// since is zero while the pump reads, and the time (see clock) since when
	// it passes on what it has read. It is taken when somebody else reads on.
	since atomic.Int64

	buffer buffer
}

// A buffer grows while much comes at a time, and shrinks while little does: most
// channels are idle, or echo keys.
type buffer struct {
	large *[largeBuffer]byte
	small [smallBuffer]byte
}

const (
	largeBuffer = 32 << 10 // x/crypto's largest packet
	smallBuffer = 2 << 10
	taken       = math.MinInt64
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// epoch is where clock starts. Its monotonic reading makes stalls immune to
// changes of the wall clock.
var epoch = time.Now()

func clock() int64 { return int64(time.Since(epoch)) + 1 }

func (p *pump) init(f *flow, isStderr bool, src io.Reader, dst io.Writer) {
	p.f, p.isStderr, p.src, p.dst = f, isStderr, src, dst
}

// run passes everything on until EOF. What cannot be written any more is read
// and dropped, so that the sender gets its window back and can come to an end.
func (p *pump) run() {
	defer p.buffer.release()
	open := true
	for {
		// An error that comes with bytes is about the window adjustment that
		// x/crypto could not send; what was received before is still there.
		n, _ := p.src.Read(p.buffer.get())
		p.f.meter().took(n)
		p.since.Store(clock())
		if n == 0 {
			break
		}
		open = open && p.pass(p.buffer.get()[:n])
		if !p.backToReading() {
			return
		}
		p.buffer.fit(n)
	}
	// What was sent ahead of EOF goes ahead of it: requests, and what order
	// waits for.
	p.f.ask()
	p.f.order()
	p.since.Store(0)
	p.f.leavePump()
}

// pass writes b. It returns false when there is no sense in writing more.
func (p *pump) pass(b []byte) bool {
	if !p.f.order() {
		return false
	}
	if hook := p.f.c.hooks.Data; hook != nil {
		hook(p.f.from, p.isStderr, b)
	}
	_, err := p.dst.Write(b)
	p.chunks.Add(1)
	return err == nil
}

// backToReading ends what since counts. It returns false when somebody else
// has taken over.
func (p *pump) backToReading() bool {
	since := p.since.Load()
	return since != taken && p.since.CompareAndSwap(since, 0)
}

// takeOver makes the pump end instead of reading again, if it is in the middle
// of passing something on. It returns false if the pump reads.
func (p *pump) takeOver() bool {
	since := p.since.Load()
	return since > 0 && p.since.CompareAndSwap(since, taken)
}

// discard reads in the pump's place, which hangs in a write: what the other
// side sent must not stay in memory until that returns.
//
// There is one reader at any time: x/crypto's buffer wakes only one at EOF.
func (p *pump) discard() {
	b := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(b)
	for {
		n, _ := p.src.Read(b[:])
		if n == 0 {
			return
		}
		p.f.meter().took(n)
	}
}

func (b *buffer) get() []byte {
	if b.large != nil {
		return b.large[:]
	}
	return b.small[:]
}

// fit chooses the next read's buffer by the size of the last.
func (b *buffer) fit(n int) {
	switch {
	case b.large == nil && n == smallBuffer:
		b.large = largeBuffers.Get().(*[largeBuffer]byte)
	case b.large != nil && n <= smallBuffer:
		b.release()
	}
}

func (b *buffer) release() {
	if b.large != nil {
		largeBuffers.Put(b.large)
		b.large = nil
	}
}

// takeOver frees what x/crypto holds of a killed flow. A pump that reads sees by
// itself that the channel was killed.
func (f *flow) takeOver() {
	for _, p := range []*pump{&f.data, &f.stderr} {
		if p.takeOver() {
			f.c.run(p.discard)
		}
	}
}

func (f *flow) owner() string { return f.c.j.hooks.Owner }

func (f *flow) meter() *Meter { return f.c.j.legs[f.from].conn.Meter }

func (f *flow) passed() uint64 { return f.data.chunks.Load() + f.stderr.chunks.Load() }

// stalledSince returns since when the flow waits for its receiver, or zero.
func (f *flow) stalledSince() int64 {
	if f.c.killed.Load() {
		return 0
	}
	a, b := f.data.since.Load(), f.stderr.since.Load()
	if a <= 0 || b > 0 && b < a {
		return max(b, 0)
	}
	return a
}

// shed closes the flow's channel because it is stalled.
func (f *flow) shed() { f.c.kill("stalled while the gateway is short of memory") }
