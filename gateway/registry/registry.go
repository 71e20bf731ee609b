// Package registry knows which gateway holds the tunnel of a task's agent.
package registry

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"
)

var (
	// ErrNotFound: no agent has claimed the task.
	ErrNotFound = errors.New("task has no host")
	// ErrHeld: another agent holds a claim of the same generation.
	ErrHeld = errors.New("task is held by another agent with the same token")
	// ErrSuperseded: an agent with a later token holds the task.
	ErrSuperseded = errors.New("task is held by an agent with a later token")
)

// A Registry maps tasks to the tunnels of their agents. All methods may be
// called at once.
type Registry interface {
	// Claim makes o the owner of task. Of two generations the later one wins:
	// an earlier claim is lost, an older o is refused with ErrSuperseded. An
	// equal generation under another key is refused with ErrHeld; under the
	// same key it is the same agent on a new tunnel and takes over.
	Claim(ctx context.Context, task string, o Owner) (Claim, error)

	// Lookup returns the present owner, or ErrNotFound.
	Lookup(ctx context.Context, task string) (Owner, error)

	// Watch sends the state of task now and after each change. A slow reader
	// misses states in between, never the latest. The channel is closed when
	// ctx ends.
	Watch(ctx context.Context, task string) (<-chan State, error)
}

// An Owner is an agent and where it is reached.
type Owner struct {
	Gateway  string            // the gateway that has its tunnel
	Key      ed25519.PublicKey // the agent's key; the same after a reconnect
	IssuedAt time.Time         // generation: when the agent's token was issued
	Data     []byte            // whatever the gateway needs to know; opaque
}

// A Claim is an owner's hold on its task.
type Claim interface {
	// Lost is closed when a newer claim has taken over, or when Release was
	// called.
	Lost() <-chan struct{}

	// Release gives the task up. It does nothing once the claim is lost.
	Release() error
}

// State is what a watcher sees.
type State struct {
	Registered bool
	Owner      Owner // zero unless Registered
}
