package gateway

import (
	"container/heap"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/stagedoor/stagedoor/tunnel"
)

// Penalties says what it costs an address when its connections end without a
// sign-in, as PerSourcePenalties does in sshd_config(5). Penalties add up and pass
// with time; while an address (IPv6: a /64) has more than Threshold of it left,
// its connections are closed at once. Those that are open stay.
//
// An address from which a live tunnel comes is charged a tenth and held for a tenth
// of Max: a whole CI fleet may share it.
//
// A zero field means its default, a negative one nothing.
type Penalties struct {
	// Refused is for a guest none of whose keys was good, and for an agent whose
	// token was not. Default 5 s.
	Refused time.Duration
	// NoSignIn is for a connection that went without having tried. Default 1 s.
	NoSignIn time.Duration
	// Timeout is for one that did not sign in within HandshakeTimeout. Default 10 s.
	Timeout time.Duration
	// Crash is for one whose handling panicked. Default 90 s.
	Crash time.Duration
	// Threshold is how much has to add up. Default 15 s.
	Threshold time.Duration
	// Max is how long an address is shut out at most. Default 10 min; negative:
	// nobody is.
	Max time.Duration
	// Exempt are the networks that are never charged. Nil: the loopback, whose
	// connections may come from a proxy that hides everybody.
	Exempt []netip.Prefix
}

func (p Penalties) withDefaults() Penalties {
	setDefault(&p.Refused, 5*time.Second)
	setDefault(&p.NoSignIn, time.Second)
	setDefault(&p.Timeout, 10*time.Second)
	setDefault(&p.Crash, 90*time.Second)
	setDefault(&p.Threshold, 15*time.Second)
	setDefault(&p.Max, 10*time.Minute)
	if p.Exempt == nil {
		p.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return p
}

// fleetDiscount is what penalties of an address with live tunnels are divided by.
const fleetDiscount = 10

// An offence is how a connection ended that did not sign in.
type offence int32

const (
	noSignIn offence = iota // it went, or nothing else is known
	noOffence
	refusedSignIn
	timedOut
	crashed
)

// cost is the penalty for an offence.
func (p Penalties) cost(o offence) time.Duration {
	switch o {
	case noSignIn:
		return p.NoSignIn
	case refusedSignIn:
		return p.Refused
	case timedOut:
		return p.Timeout
	case crashed:
		return p.Crash
	}
	return 0
}

func (p Penalties) exempts(source netip.Prefix) bool {
	for _, e := range p.Exempt {
		if e.Overlaps(source) {
			return true
		}
	}
	return false
}

// maxPenalised bounds the table: some 10 MiB. Beyond it, those whose penalty ends
// first are forgotten, as whoever owns enough addresses to fill the table gains
// nothing by that, and nobody who did nothing is shut out.
const maxPenalised = 1 << 16

// penaltyTable says which sources are charged with what.
type penaltyTable struct {
	most int // entries

	mu      sync.Mutex // guards what follows
	sources map[netip.Prefix]*penalty
	order   penaltyOrder
}

// A penalty is what a source has to wait for.
type penalty struct {
	source  netip.Prefix
	until   time.Time
	shutOut bool // it has passed the threshold, and stays until the end
	index   int  // in order
}

func newPenaltyTable() *penaltyTable {
	return &penaltyTable{most: maxPenalised, sources: make(map[netip.Prefix]*penalty)}
}

// shutsOut reports whether a source's connections are to be closed at once.
func (t *penaltyTable) shutsOut(source netip.Prefix, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	p := t.sources[source]
	return p != nil && p.shutOut
}

// charge adds to a source's penalty, which ends at max from now at the latest. It
// returns how long the source is shut out if that begins now, otherwise 0.
func (t *penaltyTable) charge(source netip.Prefix, cost, threshold, max time.Duration, now time.Time) time.Duration {
	if cost <= 0 || max <= 0 || !source.IsValid() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	p := t.sources[source]
	if p == nil {
		p = t.add(source, now)
	}
	p.until = p.until.Add(cost)
	if last := now.Add(max); p.until.After(last) {
		p.until = last
	}
	heap.Fix(&t.order, p.index)
	left := p.until.Sub(now)
	if p.shutOut || left < min(threshold, max) {
		return 0
	}
	p.shutOut = true
	return left
}

// add makes room if there is none. t.mu is held.
func (t *penaltyTable) add(source netip.Prefix, now time.Time) *penalty {
	if len(t.order) >= t.most {
		t.removeFirst()
	}
	p := &penalty{source: source, until: now}
	t.sources[source] = p
	heap.Push(&t.order, p)
	return p
}

// forget removes what is over. t.mu is held.
func (t *penaltyTable) forget(now time.Time) {
	for len(t.order) > 0 && !t.order[0].until.After(now) {
		t.removeFirst()
	}
}

func (t *penaltyTable) removeFirst() {
	delete(t.sources, heap.Pop(&t.order).(*penalty).source)
}

// len is how many sources are charged with something.
func (t *penaltyTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(time.Now())
	return len(t.order)
}

// penaltyOrder is a heap, the penalty that ends first on top.
type penaltyOrder []*penalty

func (o penaltyOrder) Len() int           { return len(o) }
func (o penaltyOrder) Less(i, j int) bool { return o[i].until.Before(o[j].until) }

func (o penaltyOrder) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i, j
}

// Push is for container/heap.
func (o *penaltyOrder) Push(x any) {
	p := x.(*penalty)
	p.index = len(*o)
	*o = append(*o, p)
}

// Pop is for container/heap.
func (o *penaltyOrder) Pop() any {
	last := len(*o) - 1
	p := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return p
}

// penalise charges the source of a connection with an offence.
func (s *Server) penalise(remote netip.AddrPort, o offence) {
	if s.ctx.Err() != nil {
		return // it was us who ended it
	}
	source := sourceOf(remote.Addr())
	p := s.settings.Load().Penalties
	if p.exempts(source) {
		return
	}
	cost, max := p.cost(o), p.Max
	if s.throttle.trusts(source) {
		cost, max = cost/fleetDiscount, max/fleetDiscount
	}
	if d := s.throttle.penalties.charge(source, cost, p.Threshold, max, time.Now()); d > 0 {
		s.log.Info("an address is shut out for a while: too many of its connections did not sign in",
			"source", source.String(), "for", d.Round(time.Second))
	}
}

// guestOffence is that of a guest who did not sign in, by the result of it and how
// many keys opened nothing.
func guestOffence(result string, refused int) offence {
	switch {
	case result == "timeout":
		return timedOut
	case refused > 0:
		return refusedSignIn
	}
	return noSignIn
}

// hostOffence is that of an agent that was not registered. Only what its token is
// to blame for counts: a fleet that meets a limit or a gateway that drains is not.
func hostOffence(err error) offence {
	refusal, ok := errors.AsType[*tunnel.Refusal](err)
	switch {
	case !ok:
		return noSignIn
	case slices.Contains([]string{tunnel.CodeBadToken, tunnel.CodeExpired, tunnel.CodeReplayed}, refusal.Code):
		return refusedSignIn
	}
	return noOffence
}
