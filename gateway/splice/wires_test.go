package splice

import (
	"net"
	"sync"
	"sync/atomic"
)

// Wires counts connections that x/crypto/ssh could not let go of (see the
// package comment). It is no metric of a gateway: a peer that ends with
// SSH_MSG_DISCONNECT, as OpenSSH does, is taken for one of them.
type Wires struct{ stuck atomic.Int64 }

// Stuck returns how many connections were closed while the goroutine that reads
// from them is neither reading nor done. Each holds up to some 40 KiB, or
// megabytes if its peer meant harm. It counts connections that are just being
// closed, too, for the moment until their reader notices.
func (w *Wires) Stuck() int64 { return w.stuck.Load() }

// Wrap returns c, watched. It is what ssh.NewServerConn or ssh.NewClientConn is
// given.
func (w *Wires) Wrap(c net.Conn) net.Conn { return &wire{Conn: c, wires: w} }

type wire struct {
	net.Conn
	wires *Wires

	reading atomic.Bool // x/crypto's reading loop has begun

	mu      sync.Mutex // guards all below
	done    bool       // a read has failed, after which the loop ends
	closed  bool
	counted bool
}

// Read notes the life of x/crypto's reading loop. The exchange of versions,
// before it, reads bytes one by one.
func (c *wire) Read(b []byte) (int, error) {
	if len(b) > 1 && !c.reading.Load() {
		c.reading.Store(true)
	}
	n, err := c.Conn.Read(b)
	if err != nil {
		c.finish()
	}
	return n, err
}

func (c *wire) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	if c.counted {
		c.counted = false
		c.wires.stuck.Add(-1)
	}
}

func (c *wire) Close() error {
	c.mu.Lock()
	if !c.closed && !c.done && c.reading.Load() {
		c.counted = true
		c.wires.stuck.Add(1)
	}
	c.closed = true
	c.mu.Unlock()
	return c.Conn.Close()
}
