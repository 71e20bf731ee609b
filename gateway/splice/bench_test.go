package splice

import (
	"io"
	"testing"
)

// BenchmarkBulk moves data from host to guest, through a join and directly.
func BenchmarkBulk(b *testing.B) {
	for _, size := range []int{32 << 10, 4 << 10} {
		b.Run(name("spliced", size), func(b *testing.B) {
			r := newRig(b, nil)
			guest, host := r.open(Guest, "direct-tcpip")
			move(b, host, guest, size)
		})
		b.Run(name("direct", size), func(b *testing.B) {
			near, far := openDirectly(b)
			move(b, far, near, size)
		})
	}
}

// BenchmarkEcho sends a key and waits for its echo.
func BenchmarkEcho(b *testing.B) {
	b.Run("spliced", func(b *testing.B) {
		r := newRig(b, nil)
		guest, host := r.open(Guest, "direct-tcpip")
		typeKey(b, guest, host)
	})
	b.Run("direct", func(b *testing.B) {
		near, far := openDirectly(b)
		typeKey(b, near, far)
	})
}

// BenchmarkSession opens a session, runs nothing in it and ends it.
func BenchmarkSession(b *testing.B) {
	r := newRig(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		guest, host := r.session()
		go func() {
			(<-host.reqs).Reply(true, nil)
			host.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
			host.Close()
		}()
		if ok, err := guest.SendRequest("exec", true, nil); !ok || err != nil {
			b.Fatal(ok, err)
		}
		for range guest.reqs {
		}
	}
}

func name(way string, size int) string {
	if size < 32<<10 {
		return way + " small writes"
	}
	return way
}

func move(b *testing.B, from io.Writer, to io.Reader, size int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, to, int64(b.N)*int64(size))
		done <- err
	}()
	chunk := noise(size)
	b.ResetTimer()
	for range b.N {
		if _, err := from.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func typeKey(b *testing.B, near, far end) {
	go io.Copy(far, far)
	key := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		near.Write(key)
		if _, err := io.ReadFull(near, key); err != nil {
			b.Fatal(err)
		}
	}
}

// openDirectly returns both ends of a channel without a join between them.
func openDirectly(b *testing.B) (near, far end) {
	host, guest, _ := connect(b, false)
	b.Cleanup(func() { host.Close(); guest.Close() })
	accepted := make(chan end, 1)
	go func() {
		ch, reqs, _ := (<-host.Channels).Accept()
		accepted <- end{ch, reqs}
	}()
	ch, reqs, err := guest.OpenChannel("direct-tcpip", nil)
	if err != nil {
		b.Fatal(err)
	}
	return end{ch, reqs}, <-accepted
}
