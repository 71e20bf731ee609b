package registrytest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/gateway/registry"
)

func testWatch(t *testing.T, r registry.Registry) {
	states := watch(t.Context(), t, r, "task")
	next(t, states, gone)
	claim(t, r, "task", owner('a', 1))
	next(t, states, registered(owner('a', 1)))
	c := claim(t, r, "task", owner('b', 2))
	next(t, states, registered(owner('b', 2)))
	release(t, c)
	next(t, states, gone)
}

func testWatchPresent(t *testing.T, r registry.Registry) {
	claim(t, r, "task", owner('a', 1))
	next(t, watch(t.Context(), t, r, "task"), registered(owner('a', 1)))
	next(t, watch(t.Context(), t, r, "other"), gone)
}

func testWatchEnds(t *testing.T, r registry.Registry) {
	ctx, cancel := context.WithCancel(t.Context())
	ended, stays := watch(ctx, t, r, "task"), watch(t.Context(), t, r, "task")
	cancel()
	deadline := time.After(patience)
	for open := true; open; {
		select {
		case _, open = <-ended:
		case <-deadline:
			t.Fatal("the watch did not end with its context")
		}
	}
	claim(t, r, "task", owner('a', 1))
	next(t, stays, registered(owner('a', 1)))
}

// A watcher that reads nothing holds no claim up, and then sees the latest
// state, however many it missed.
func testSlowWatcher(t *testing.T, r registry.Registry) {
	const generations = 200
	states := watch(t.Context(), t, r, "task")
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range generations {
			if _, err := r.Claim(t.Context(), "task", owner('a', n)); err != nil {
				t.Errorf("claim %d: %v", n, err)
			}
		}
	})
	wg.Wait()
	next(t, states, registered(owner('a', generations-1)))
}
