package gateway_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestRefusedChannelsLeaveNothing has channels refused for each reason there is,
// and compares heap and goroutines before and after.
func TestRefusedChannelsLeaveNothing(t *testing.T) {
	total := 100_000
	if raced {
		total = 10_000
	}
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	spliced, jumping := w.mustDial("task-1", k), w.mustDial("somebody", k)
	direct := func(host string, port uint32) []byte {
		return ssh.Marshal(struct {
			Host       string
			Port       uint32
			OriginHost string
			OriginPort uint32
		}{host, port, "127.0.0.1", 1})
	}
	refusals := []struct {
		c     *ssh.Client
		typ   string
		extra []byte
	}{
		{spliced, "no-such-type", nil},
		{spliced, "x11", nil},
		{spliced, "direct-tcpip", nil},
		{spliced, "direct-tcpip", direct("127.0.0.1", 1)}, // by the host: nobody listens
		{jumping, "direct-tcpip", nil},
		{jumping, "direct-tcpip", direct("task-2", 22)},
		{jumping, "direct-tcpip", direct("task-1", 23)},
		{jumping, "direct-streamlocal@openssh.com", nil},
	}
	refuse := func(n int) {
		work := make(chan int)
		var workers sync.WaitGroup
		for range 32 {
			workers.Go(func() {
				for i := range work {
					r := refusals[i%len(refusals)]
					_, _, err := r.c.OpenChannel(r.typ, r.extra)
					if !errors.As(err, new(*ssh.OpenChannelError)) {
						t.Errorf("%s %x: %v", r.typ, r.extra, err)
					}
				}
			})
		}
		for i := range n {
			work <- i
		}
		close(work)
		workers.Wait()
	}
	refuse(total / 10) // what is made once is made now
	heap, goroutines := heapAndGoroutines()
	refuse(total)
	var after string
	eventually(t, "heap and goroutines are as before", func() bool {
		h, g := heapAndGoroutines()
		after = fmt.Sprintf("%d KiB and %d goroutines, before %d and %d", h>>10, g, heap>>10, goroutines)
		return g <= goroutines+4 && h < heap+4<<20
	})
	t.Log(after)
}

func heapAndGoroutines() (heap uint64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, runtime.NumGoroutine()
}
