package splice

import (
	"io"
	"sync/atomic"
)

// Copy copies from src to dst until EOF, which is no error, or an error of src.
// What dst does not take any more is read and dropped, so that the sender comes
// to an end. moved is called with the number of bytes that were written.
//
// It is counted as one direction of a channel of owner is. When the budget is exceeded
// shed is called, which must not block, and must have src and dst fail.
func (b *Budget) Copy(owner string, dst io.Writer, src io.Reader, moved func(int), shed func()) error {
	c := &copying{whose: owner, cut: shed}
	if m, ok := src.(measured); ok {
		c.from = m.from
	}
	defer c.buffer.release()
	b.add(c)
	defer b.remove(c)
	for open := true; ; {
		p := c.buffer.get()
		n, err := src.Read(p)
		if n > 0 && open {
			c.since.Store(clock())
			written, werr := dst.Write(p[:n])
			c.chunks.Add(1)
			c.since.Store(0)
			moved(written)
			open = werr == nil
		}
		// An error that comes with bytes is not the end: see pump.run.
		if n == 0 && err != nil {
			return noEOF(err)
		}
		c.buffer.fit(n)
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// copying is the load of a Copy.
type copying struct {
	whose  string
	since  atomic.Int64 // as in pump
	chunks atomic.Uint64
	cut    func()
	from   *Meter
	buffer buffer
}

func (c *copying) owner() string       { return c.whose }
func (c *copying) meter() *Meter       { return c.from }
func (c *copying) passed() uint64      { return c.chunks.Load() }
func (c *copying) stalledSince() int64 { return c.since.Load() }
func (c *copying) shed()               { c.cut() }
