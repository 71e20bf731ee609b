// Package registrytest is the conformance suite of registry.Registry.
//
//	func TestMemory(t *testing.T) {
//		registrytest.Run(t, func(t *testing.T) registry.Registry { return registry.NewMemory() })
//	}
package registrytest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/gateway/registry"
)

// patience is how long an event that must come may take on a loaded machine.
const patience = 30 * time.Second

// Run tests the registries that open returns; each test asks for a fresh one.
// What has to be closed, open closes with t.Cleanup. Tests run one by one.
func Run(t *testing.T, open func(t *testing.T) registry.Registry) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, r registry.Registry)
	}{
		{"unknown task", testUnknownTask},
		{"claim and release", testClaimAndRelease},
		{"tasks are apart", testTasksAreApart},
		{"later generation wins", testLaterGeneration},
		{"earlier generation is refused", testEarlierGeneration},
		{"equal generation under another key is refused", testEqualGeneration},
		{"same key supersedes itself", testReconnect},
		{"old release leaves the newer claim", testOldRelease},
		{"release twice", testReleaseTwice},
		{"same instant in another zone", testZones},
		{"owner is copied", testOwnerIsCopied},
		{"ended context", testEndedContext},
		{"claim outlives its context", testClaimOutlivesContext},
		{"watch sees arrival and loss", testWatch},
		{"watch starts with the present", testWatchPresent},
		{"watch ends with its context", testWatchEnds},
		{"slow watcher gets the latest", testSlowWatcher},
		{"many agents, one task", testManyAgents},
		{"many reconnects of one agent", testManyReconnects},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// generation returns the n-th of a row of generations.
func generation(n int) time.Time {
	return time.Date(2030, 1, 1, 0, 0, n, 0, time.UTC)
}

// owner returns an owner of generation n whose key is made from the letter.
func owner(letter byte, n int) registry.Owner {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = letter
	return registry.Owner{
		Gateway:  "gateway-" + string(letter),
		Key:      ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey),
		IssuedAt: generation(n),
		Data:     []byte{letter, byte(n)},
	}
}

func same(a, b registry.Owner) bool {
	return a.Gateway == b.Gateway && a.Key.Equal(b.Key) && a.IssuedAt.Equal(b.IssuedAt) && string(a.Data) == string(b.Data)
}

func claim(t *testing.T, r registry.Registry, task string, o registry.Owner) registry.Claim {
	t.Helper()
	c, err := r.Claim(t.Context(), task, o)
	if err != nil {
		t.Fatalf("claim by %s: %v", o.Gateway, err)
	}
	return c
}

func refused(t *testing.T, r registry.Registry, task string, o registry.Owner, want error) {
	t.Helper()
	if _, err := r.Claim(t.Context(), task, o); !errors.Is(err, want) {
		t.Fatalf("claim by %s: error %v, want %v", o.Gateway, err, want)
	}
}

func owned(t *testing.T, r registry.Registry, task string, want registry.Owner) {
	t.Helper()
	got, err := r.Lookup(t.Context(), task)
	if err != nil || !same(got, want) {
		t.Fatalf("lookup: %v, %v; want %v", got, err, want)
	}
}

func notFound(t *testing.T, r registry.Registry, task string) {
	t.Helper()
	if o, err := r.Lookup(t.Context(), task); !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("lookup: %v, %v; want ErrNotFound", o, err)
	}
}

func release(t *testing.T, c registry.Claim) {
	t.Helper()
	if err := c.Release(); err != nil {
		t.Fatalf("release: %v", err)
	}
}

func lost(t *testing.T, c registry.Claim) {
	t.Helper()
	select {
	case <-c.Lost():
	case <-time.After(patience):
		t.Fatal("the claim was not told that it is lost")
	}
}

func kept(t *testing.T, c registry.Claim) {
	t.Helper()
	select {
	case <-c.Lost():
		t.Fatal("the claim was lost")
	default:
	}
}

func watch(ctx context.Context, t *testing.T, r registry.Registry, task string) <-chan registry.State {
	t.Helper()
	states, err := r.Watch(ctx, task)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	return states
}

// next reads states until one is as wanted: a registry may send a state twice,
// and a reader who is late may miss those in between.
func next(t *testing.T, states <-chan registry.State, want func(registry.State) bool) {
	t.Helper()
	deadline := time.After(patience)
	var last registry.State
	for {
		select {
		case s, ok := <-states:
			if !ok {
				t.Fatal("the watch ended")
			}
			if last = s; want(s) {
				return
			}
		case <-deadline:
			t.Fatalf("the state never came; last: %v", last)
		}
	}
}

func gone(s registry.State) bool { return !s.Registered && same(s.Owner, registry.Owner{}) }

func registered(want registry.Owner) func(registry.State) bool {
	return func(s registry.State) bool { return s.Registered && same(s.Owner, want) }
}
