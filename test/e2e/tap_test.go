package e2e

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A tap is a TCP relay that keeps everything that passes it.
type tap struct {
	address string
	mu      sync.Mutex // guards what follows
	taken   []*bytes.Buffer
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	k := &tap{}
	k.address = serve(t, "127.0.0.1:0", func(c halfConn) {
		up, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer up.Close()
		c.SetDeadline(time.Time{}) // a tunnel lasts
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.pass(up, c)
			c.Close()
		}()
		k.pass(c, up)
		up.Close()
		c.Close()
		<-done
	})
	return k
}

// pass moves bytes one way, and keeps them.
func (k *tap) pass(to io.Writer, from io.Reader) {
	taken := new(bytes.Buffer)
	k.mu.Lock()
	k.taken = append(k.taken, taken)
	k.mu.Unlock()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		k.mu.Lock()
		taken.Write(buf[:n])
		k.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// size is how many bytes have passed.
func (k *tap) size() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, taken := range k.taken {
		n += taken.Len()
	}
	return n
}

func (k *tap) contains(text string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, taken := range k.taken {
		if bytes.Contains(taken.Bytes(), []byte(text)) {
			return true
		}
	}
	return false
}
