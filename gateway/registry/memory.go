package registry

import "context"

// Memory is the Registry of a single gateway. Use NewMemory.
type Memory struct{}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{} }

// Claim implements Registry.
func (m *Memory) Claim(ctx context.Context, task string, o Owner) (Claim, error) {
	return nil, ErrHeld
}

// Lookup implements Registry.
func (m *Memory) Lookup(ctx context.Context, task string) (Owner, error) {
	return Owner{}, ErrNotFound
}

// Watch implements Registry.
func (m *Memory) Watch(ctx context.Context, task string) (<-chan State, error) {
	return nil, ErrNotFound
}
