package registry

import (
	"context"
	"testing"
)

// A gateway sees millions of tasks: what nobody claims or watches must go.
func TestMemoryForgets(t *testing.T) {
	m := NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	states, err := m.Watch(ctx, "watched")
	if err != nil {
		t.Fatal(err)
	}
	claim, err := m.Claim(t.Context(), "claimed", Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.tasks) != 2 {
		t.Fatalf("%d entries, want 2", len(m.tasks))
	}
	claim.Release()
	cancel()
	for range states {
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.tasks) != 0 {
		t.Errorf("%d entries left, want none", len(m.tasks))
	}
}
