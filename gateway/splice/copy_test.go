package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"
)

// TestCopy: all arrives and is counted, and what cannot be written is read.
func TestCopy(t *testing.T) {
	b := newBudget(0)
	data := noise(3*largeBuffer + 100)
	var out bytes.Buffer
	moved := 0
	if err := b.Copy("alice", &out, iotest.DataErrReader(bytes.NewReader(data)), func(n int) { moved += n }, nil); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(out.Bytes(), data) || moved != len(data) {
		t.Errorf("%d bytes arrived and %d were counted, of %d", out.Len(), moved, len(data))
	}
	left := bytes.NewReader(data)
	closed, other := net.Pipe()
	other.Close()
	if err := b.Copy("alice", closed, left, func(n int) { moved += n }, nil); err != nil || left.Len() != 0 || moved != len(data) {
		t.Errorf("%v, %d bytes left, %d counted", err, left.Len(), moved)
	}
	lost := errors.New("lost")
	if err := b.Copy("alice", io.Discard, iotest.ErrReader(lost), func(int) {}, nil); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
	if len(b.loads) != 0 {
		t.Error("the budget still counts them")
	}
}

// TestStalledCopyIsShed: what stalls is counted, and cut when there is too much.
func TestStalledCopyIsShed(t *testing.T) {
	b := newBudget(perFlow)
	b.delay = 0
	shed := make(chan int, 2)
	done := make(chan struct{}, 2)
	for i := range 2 {
		src, in := net.Pipe()
		out, dst := net.Pipe() // whose other end nobody reads
		t.Cleanup(func() { dst.Close() })
		go func() {
			b.Copy("alice", out, src, func(int) {}, func() {
				shed <- i
				src.Close()
				out.Close()
			})
			done <- struct{}{}
		}()
		in.Write([]byte("stuck"))
		waitFor(t, "the copy to stall", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			stalled := 0
			for l := range b.loads {
				if l.stalledSince() > 0 {
					stalled++
				}
			}
			return stalled == i+1
		})
		t.Cleanup(func() { in.Close(); src.Close(); out.Close() })
	}
	b.sweep(clock() + int64(time.Second))
	if got := await(t, shed, "a copy to be cut"); got != 1 {
		t.Errorf("copy %d was cut, not the one that stalled last", got)
	}
	await(t, done, "the copy to end")
	if len(shed) > 0 {
		t.Error("the other was cut too")
	}
}
