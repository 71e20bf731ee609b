package gateway_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		testenv.Skip(t, "needs /proc")
	}
	return len(entries)
}

// TestThousandSessionsLeaveNothing runs sessions of all kinds through gateway
// and agent in one process, some of them left rudely, and compares goroutines
// and descriptors before and after.
func TestThousandSessionsLeaveNothing(t *testing.T) {
	connections, sessions := 50, 20
	if raced {
		connections = 25
	}
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	a := w.startAgent(w.token("task-1", time.Now(), k))
	one := func() {
		c, err := w.dial("task-1", ssh.PublicKeys(k.Signer))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		var group sync.WaitGroup
		for i := range sessions {
			group.Go(func() { runSession(t, c, i) })
		}
		group.Wait()
	}
	settled := func() (goroutines, files int) {
		eventually(t, "all sessions end", func() bool { return a.Sessions() == 0 })
		return runtime.NumGoroutine(), openFiles(t)
	}
	one() // what is made once is made now
	goroutines, files := settled()
	workers := make(chan struct{}, 4)
	var group sync.WaitGroup
	for range connections {
		workers <- struct{}{}
		group.Go(func() {
			one()
			<-workers
		})
	}
	group.Wait()
	eventually(t, "goroutines and descriptors are as before", func() bool {
		g, f := settled()
		return g <= goroutines+2 && f <= files+2
	})
}

// runSession ends in one of four ways: by itself, with a PTY, by a signal, or
// because the guest closes the channel under it.
func runSession(t *testing.T, c *ssh.Client, i int) {
	s, err := c.NewSession()
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	switch i % 4 {
	case 0:
		if out, err := s.Output("echo done"); err != nil || string(out) != "done\n" {
			t.Errorf("%v: %q", err, out)
		}
	case 1:
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			t.Error(err)
		}
		if err := s.Run("exit 3"); !strings.Contains(err.Error(), "status 3") {
			t.Error(err)
		}
	case 2:
		if err := s.Run("kill -TERM $$"); !strings.Contains(err.Error(), "signal TERM") {
			t.Error(err)
		}
	case 3:
		if err := s.Start("exec sleep 1000"); err != nil {
			t.Error(err)
		}
	}
}

// panicking is an authorizer with a defect.
type panicking struct{}

func (panicking) Authorize(context.Context, auth.Identity, auth.Task) (*ssh.Permissions, error) {
	panic("a defect")
}

// TestPanicEndsOneConnection: a defect met by one guest ends that guest's
// connection, is logged with its stack, and nothing else happens.
func TestPanicEndsOneConnection(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	w.startAgent(w.token("task-1", time.Now(), k))
	c := w.mustDial("task-1", k)
	broken := w.settings
	broken.Guests = panicking{}
	if err := w.server.Reload(broken); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dial("task-1", ssh.PublicKeys(k.Signer)); err == nil {
		t.Error("a guest was let in by an authorizer that panicked")
	}
	eventually(t, "the panic is logged", func() bool {
		return strings.Contains(w.log.String(), "caught a panic") && strings.Contains(w.log.String(), "panicking")
	})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo fine"); err != nil || string(out) != "fine\n" {
		t.Errorf("another guest: %v: %q", err, out)
	}
}

// stuck is an authorizer that answers only when it is told to stop.
type stuck struct{}

func (stuck) Authorize(ctx context.Context, _ auth.Identity, _ auth.Task) (*ssh.Permissions, error) {
	<-ctx.Done()
	return nil, errors.Join(auth.ErrDenied, ctx.Err())
}

// TestSlowAuthorizer: a sign-in that takes too long ends with the handshake's
// time, and holds up nobody.
func TestSlowAuthorizer(t *testing.T) {
	w := newWorld(t, func(s *gateway.Settings) {
		s.Guests = stuck{}
		s.Limits.HandshakeTimeout = 300 * time.Millisecond
	})
	k := testenv.NewKey(t, w.dir, "alice")
	if _, err := w.dial("task-1", ssh.PublicKeys(k.Signer)); err == nil {
		t.Error("a guest was let in by an authorizer that did not answer")
	}
}
