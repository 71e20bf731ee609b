package testenv

import (
	"net"
	"testing"
	"time"
)

// FreeAddress is a port of the loopback interface that nobody listened on a
// moment ago, for programs that have to be told one.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
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
