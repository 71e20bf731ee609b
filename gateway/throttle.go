package gateway

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// throttle bounds the connections that have not signed in yet, in all and for
// each source address, and knows which addresses are shut out for what they did.
type throttle struct {
	penalties *penaltyTable

	mu      sync.Mutex // guards what follows
	pending int
	sources map[netip.Prefix]int // connections signing in
	trusted map[netip.Prefix]int // live tunnels: such sources have a larger share
}

func newThrottle() *throttle {
	return &throttle{penalties: newPenaltyTable(), sources: make(map[netip.Prefix]int), trusted: make(map[netip.Prefix]int)}
}

// enter asks for a place among the connections that are signing in. reason is
// empty when it is granted; then leave gives it back, and may be called again.
func (t *throttle) enter(source netip.Prefix, l Limits) (leave func(), reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.penalties.shutsOut(source, time.Now()) {
		return nil, "penalty"
	}
	perSource := l.UnauthenticatedPerSource
	if t.trusted[source] > 0 {
		perSource = max(perSource, l.Unauthenticated/2)
	}
	switch {
	case t.pending >= l.Unauthenticated:
		return nil, "all"
	case t.sources[source] >= perSource:
		return nil, "source"
	}
	t.pending++
	t.sources[source]++
	return sync.OnceFunc(func() { t.exit(source) }), ""
}

func (t *throttle) exit(source netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending--
	decrement(t.sources, source)
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
