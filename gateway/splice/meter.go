package splice

import (
	"net"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// A Meter is a connection that knows how much of what came through it x/crypto/ssh
// still holds. A window is counted in bytes, but each packet of one byte takes 48
// of memory: what a peer sends so would fill a Budget fifty times over unseen. It
// is what ssh.NewServerConn or ssh.NewClientConn is given, and then Conn.Meter.
type Meter struct {
	net.Conn
	received atomic.Int64 // bytes, encrypted
	taken    atomic.Int64 // of them, those that have left x/crypto
	atRest   int64        // what difference remained when nobody waited; guarded by Budget.mu
}

// NewMeter returns c, measured.
func NewMeter(c net.Conn) *Meter { return &Meter{Conn: c} }

// Read reads from the connection and counts.
func (m *Meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.received.Add(int64(n))
	return n, err
}

// leastOverhead is what encryption adds to one byte at least: length, padding, type,
// channel and tag.
const leastOverhead = 35

// took notes that n bytes of channel data were read. They may have been in many
// packets, whose overhead then counts as held until nobody waits.
func (m *Meter) took(n int) {
	if m != nil && n > 0 {
		m.taken.Add(int64(n) + leastOverhead)
	}
}

// left is what has come and was not taken. Of that, some never will be: requests,
// window adjustments, padding.
func (m *Meter) left() int64 { return m.received.Load() - m.taken.Load() }

// rest notes that nothing is held at the moment. Budget.mu is held.
func (m *Meter) rest() { m.atRest = m.left() }

// held is the memory that is held, at most: in the worst case, of single bytes, it is
// by a third more than what came. Budget.mu is held.
func (m *Meter) held() int64 {
	if m == nil {
		return 0
	}
	return max(0, m.left()-m.atRest) * 4 / 3
}

// measured has a channel's data be counted as taken when it is read.
type measured struct {
	ssh.Channel
	from *Meter
}

// Read reads the peer's data.
func (c measured) Read(b []byte) (int, error) {
	n, err := c.Channel.Read(b)
	c.from.took(n)
	return n, err
}
