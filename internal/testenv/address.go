package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Ports are handed out below those that the kernel gives to whoever asks for any
// (32768 and up on Linux, 49152 elsewhere), or a connection of somebody else could
// have one before the program that was told it listens. Test programs that run at
// the same time share the rest in blocks.
const (
	firstPort  = 10000
	portBlocks = 220
	portBlock  = 100
)

var ports struct {
	mu     sync.Mutex     // guards what follows
	claims []net.Listener // on the first port of each block of ours, for as long as this program runs
	next   int            // port to hand out
	end    int            // of the present block
}

// FreeAddress is a port of the loopback interface that nobody listens on, for
// programs that have to be told one. No other test gets the same.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range portBlocks * portBlock {
		if ports.next == ports.end {
			claimPorts()
			continue
		}
		ports.next++
		if l := listenOn(ports.next - 1); l != nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// claimPorts looks for a block that no other test program has.
func claimPorts() {
	block := firstPort + rand.IntN(portBlocks)*portBlock
	if l := listenOn(block); l != nil {
		ports.claims = append(ports.claims, l)
		ports.next, ports.end = block+1, block+portBlock
	}
}

// listenOn listens on a port of the loopback interface. Nil: somebody else does.
func listenOn(port int) net.Listener {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil
	}
	return l
}

// DialEventually connects to what is about to listen. It polls, as there is no
// event for the test to wait for, and fails the test after [Patience].
func DialEventually(t testing.TB, network, address string) net.Conn {
	t.Helper()
	deadline := time.After(Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial(network, address)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("nobody listens on %s: %v", address, err)
		}
	}
}
