package registrytest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/gateway/registry"
)

func testUnknownTask(t *testing.T, r registry.Registry) { notFound(t, r, "task") }

func testClaimAndRelease(t *testing.T, r registry.Registry) {
	c := claim(t, r, "task", owner('a', 1))
	owned(t, r, "task", owner('a', 1))
	kept(t, c)
	release(t, c)
	lost(t, c)
	notFound(t, r, "task")
	claim(t, r, "task", owner('b', 1))
	owned(t, r, "task", owner('b', 1))
}

func testTasksAreApart(t *testing.T, r registry.Registry) {
	a := claim(t, r, "task-a", owner('a', 2))
	b := claim(t, r, "task-b", owner('b', 1))
	release(t, b)
	kept(t, a)
	owned(t, r, "task-a", owner('a', 2))
	notFound(t, r, "task-b")
}

func testLaterGeneration(t *testing.T, r registry.Registry) {
	old := claim(t, r, "task", owner('a', 1))
	c := claim(t, r, "task", owner('b', 2))
	lost(t, old)
	kept(t, c)
	owned(t, r, "task", owner('b', 2))

	again := claim(t, r, "task", owner('b', 3)) // the same agent with a new token
	lost(t, c)
	kept(t, again)
}

func testEarlierGeneration(t *testing.T, r registry.Registry) {
	c := claim(t, r, "task", owner('a', 2))
	refused(t, r, "task", owner('b', 1), registry.ErrSuperseded)
	refused(t, r, "task", owner('a', 1), registry.ErrSuperseded) // its own older token, too
	kept(t, c)
	owned(t, r, "task", owner('a', 2))
}

func testEqualGeneration(t *testing.T, r registry.Registry) {
	c := claim(t, r, "task", owner('a', 1))
	refused(t, r, "task", owner('b', 1), registry.ErrHeld)
	kept(t, c)
	owned(t, r, "task", owner('a', 1))
	release(t, c)
	claim(t, r, "task", owner('b', 1))
}

func testReconnect(t *testing.T, r registry.Registry) {
	first := claim(t, r, "task", owner('a', 1))
	moved := owner('a', 1)
	moved.Gateway, moved.Data = "gateway-elsewhere", []byte("new")
	second := claim(t, r, "task", moved)
	lost(t, first)
	kept(t, second)
	owned(t, r, "task", moved)
}

func testOldRelease(t *testing.T, r registry.Registry) {
	first := claim(t, r, "task", owner('a', 1))
	second := claim(t, r, "task", owner('a', 1))
	release(t, first)
	kept(t, second)
	owned(t, r, "task", owner('a', 1))

	third := claim(t, r, "task", owner('b', 2))
	release(t, second)
	kept(t, third)
	owned(t, r, "task", owner('b', 2))
}

func testReleaseTwice(t *testing.T, r registry.Registry) {
	c := claim(t, r, "task", owner('a', 1))
	release(t, c)
	release(t, c)
	next := claim(t, r, "task", owner('a', 1))
	release(t, c)
	kept(t, next)
}

// Times that are one instant are one generation, whatever their location or
// monotonic reading: tokens are read by machines in different zones.
func testZones(t *testing.T, r registry.Registry) {
	o := owner('a', 1)
	o.IssuedAt = o.IssuedAt.In(time.FixedZone("east", 3600))
	c := claim(t, r, "task", o)
	refused(t, r, "task", owner('b', 1), registry.ErrHeld)
	kept(t, c)
	claim(t, r, "task", owner('a', 1))
	lost(t, c)
}

func testOwnerIsCopied(t *testing.T, r registry.Registry) {
	o := owner('a', 1)
	claim(t, r, "task", o)
	o.Key[0]++
	o.Data[0]++
	got, err := r.Lookup(t.Context(), "task")
	if err != nil || !same(got, owner('a', 1)) {
		t.Fatalf("lookup: %v, %v: the owner changed with the caller's slices", got, err)
	}
	got.Key[0]++
	got.Data[0]++
	owned(t, r, "task", owner('a', 1))
}

func testEndedContext(t *testing.T, r registry.Registry) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Claim(ctx, "task", owner('a', 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("claim: error %v, want context.Canceled", err)
	}
	if _, err := r.Lookup(ctx, "task"); !errors.Is(err, context.Canceled) {
		t.Errorf("lookup: error %v, want context.Canceled", err)
	}
	if _, err := r.Watch(ctx, "task"); !errors.Is(err, context.Canceled) {
		t.Errorf("watch: error %v, want context.Canceled", err)
	}
	notFound(t, r, "task")
}

func testClaimOutlivesContext(t *testing.T, r registry.Registry) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := r.Claim(ctx, "task", owner('a', 1))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	owned(t, r, "task", owner('a', 1))
	kept(t, c)
	release(t, c)
}

// Agents of rising generations and with copies of each other's tokens fight
// for one task: one of the last generation has it, all others know.
func testManyAgents(t *testing.T, r registry.Registry) {
	const agents, generations = 8, 20
	claims := make([]registry.Claim, agents)
	var wg sync.WaitGroup
	for i := range agents {
		wg.Go(func() {
			for n := range generations {
				c, err := r.Claim(t.Context(), "task", owner('a'+byte(i), n))
				switch {
				case err == nil:
					claims[i] = c
				case !errors.Is(err, registry.ErrHeld) && !errors.Is(err, registry.ErrSuperseded):
					t.Errorf("claim: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got, err := r.Lookup(t.Context(), "task")
	if err != nil || !got.IssuedAt.Equal(generation(generations-1)) {
		t.Fatalf("lookup: %v, %v; want an owner of the last generation", got, err)
	}
	for i, c := range claims {
		switch {
		case same(got, owner('a'+byte(i), generations-1)):
			kept(t, c)
		case c != nil:
			lost(t, c)
		}
	}
}

// An agent whose network flaps claims from many tunnels at once, and the
// tunnels that died release late: the task is never without its host.
func testManyReconnects(t *testing.T, r registry.Registry) {
	last := claim(t, r, "task", owner('a', 1))
	var wg sync.WaitGroup
	for range 50 {
		old := last
		wg.Go(func() {
			if err := old.Release(); err != nil {
				t.Errorf("release: %v", err)
			}
		})
		last = claim(t, r, "task", owner('a', 1))
		owned(t, r, "task", owner('a', 1))
	}
	wg.Wait()
	kept(t, last)
	owned(t, r, "task", owner('a', 1))
}
