package gateway

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// throttle bounds the connections that have not signed in yet, in all and for
// each source address, and knows which addresses are shut out for what they did.
//
// When there are too many in all, the newcomer takes the place of the one that has
// waited longest, from the address that uses most of what it may: whoever holds
// places open from a thousand addresses keeps nobody out who signs in at once.
type throttle struct {
	penalties *penaltyTable

	mu      sync.Mutex // guards what follows
	pending int
	sources map[netip.Prefix][]*place // connections signing in, the oldest first
	trusted map[netip.Prefix]int      // live tunnels: such sources have a larger share
}

// A place is that of a connection which is signing in.
type place struct {
	source netip.Prefix
	cut    func() // ends the connection
}

func newThrottle() *throttle {
	return &throttle{penalties: newPenaltyTable(), sources: make(map[netip.Prefix][]*place), trusted: make(map[netip.Prefix]int)}
}

// enter asks for a place among the connections that are signing in. reason is
// empty when it is granted; then leave gives it back, and may be called again. cut
// ends the connection when another needs its place more.
func (t *throttle) enter(source netip.Prefix, l Limits, cut func()) (leave func(), reason string) {
	if t.penalties.shutsOut(source, time.Now()) {
		return nil, "penalty"
	}
	p, victim, reason := t.take(source, l, cut)
	if victim != nil {
		victim.cut()
	}
	if reason != "" {
		return nil, reason
	}
	return func() { t.exit(p) }, ""
}

// take returns the place, and whose it was if there was none left.
func (t *throttle) take(source netip.Prefix, l Limits, cut func()) (p, victim *place, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sources[source]) >= t.share(source, l) {
		return nil, nil, "source"
	}
	if t.pending >= l.Unauthenticated {
		if victim = t.crowd(source, l); victim == nil {
			return nil, nil, "all"
		}
		t.remove(victim)
	}
	p = &place{source: source, cut: cut}
	t.pending++
	t.sources[source] = append(t.sources[source], p)
	return p, victim, ""
}

// share is how many connections of a source may be signing in. t.mu is held.
func (t *throttle) share(source netip.Prefix, l Limits) int {
	if t.trusted[source] > 0 {
		return max(l.UnauthenticatedPerSource, l.Unauthenticated/2)
	}
	return l.UnauthenticatedPerSource
}

// crowd is the oldest place of the source that uses most of its share, or nil if
// that would be the newcomer. t.mu is held.
func (t *throttle) crowd(newcomer netip.Prefix, l Limits) *place {
	used := func(source netip.Prefix, n int) float64 { return float64(n) / float64(t.share(source, l)) }
	most := used(newcomer, len(t.sources[newcomer])+1)
	var oldest *place
	for source, places := range t.sources {
		if u := used(source, len(places)); u >= most && source != newcomer {
			most, oldest = u, places[0]
		}
	}
	return oldest
}

func (t *throttle) exit(p *place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(p)
}

// remove gives a place back, unless it was already. t.mu is held.
func (t *throttle) remove(p *place) {
	places := t.sources[p.source]
	i := slices.Index(places, p)
	if i < 0 {
		return
	}
	t.pending--
	if places = slices.Delete(places, i, i+1); len(places) == 0 {
		delete(t.sources, p.source)
		return
	}
	t.sources[p.source] = places
}

// trust gives an address a larger share for as long as a tunnel from it lives,
// which the returned function ends.
func (t *throttle) trust(source netip.Prefix) (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trusted[source]++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		decrement(t.trusted, source)
	})
}

// trusts reports whether a live tunnel comes from an address.
func (t *throttle) trusts(source netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trusted[source] > 0
}

func (t *throttle) total() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pending
}

// decrement counts down and forgets what reaches zero, so that a map never
// holds more entries than there are connections.
func decrement[K comparable](m map[K]int, key K) {
	if m[key]--; m[key] <= 0 {
		delete(m, key)
	}
}

// remoteAddrPort is the address of a connection's other end, or the zero
// AddrPort where that is no IP address.
func remoteAddrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// sourceOf is the unit that limits count by: an IPv4 address, or the /64 that
// an IPv6 customer is given.
func sourceOf(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
