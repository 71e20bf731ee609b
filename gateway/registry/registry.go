// Package registry knows which agent is the host of a task, and which gateway
// has that agent's tunnel.
//
//	claim, err := reg.Claim(ctx, "task-1234", registry.Owner{Gateway: "gw-1", Key: key, IssuedAt: iat})
//	if err != nil {
//		return err // another agent is the host
//	}
//	defer claim.Release()
//	<-claim.Lost() // a newer agent, or this one on a new tunnel
//
// A generation is the time at which the agent's token was issued. The highest
// one wins, so whoever was sent last by the CI is the host, however often an
// older agent comes back. Within one generation the agent's key decides: the
// same key is the same agent after a reconnect, another key is somebody who
// has a copy of its token.
package registry

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"
)

var (
	// ErrNotFound means that no agent has claimed the task.
	ErrNotFound = errors.New("task has no host")

	// ErrHeld means that an agent with another key holds a claim of the same
	// generation: the same token was given to two agents.
	ErrHeld = errors.New("task is held by another agent with the same token")

	// ErrSuperseded means that an agent with a later token holds the task.
	ErrSuperseded = errors.New("task is held by an agent with a later token")
)

// A Registry maps tasks to their owners. All methods may be called at once.
// They return ctx.Err(), wrapped or not, when ctx ends before they are done.
type Registry interface {
	// Claim makes o the owner of task. A later generation takes the task from
	// an earlier one, and the same generation under the same key (an agent
	// that reconnects) takes it from itself: the older claim is lost. An
	// earlier generation is refused with ErrSuperseded, an equal one under
	// another key with ErrHeld. ctx bounds the call, not the claim, which
	// lasts until it is lost or released.
	//
	// A registry need not remember generations that were released: an older
	// agent may follow a newer one that has left.
	Claim(ctx context.Context, task string, o Owner) (Claim, error)

	// Lookup returns the present owner, or ErrNotFound.
	Lookup(ctx context.Context, task string) (Owner, error)

	// Watch sends the state of task now and after each change. A reader that
	// is slow misses states in between, never the latest, and holds nobody
	// up. The channel is closed when ctx ends.
	Watch(ctx context.Context, task string) (<-chan State, error)
}

// An Owner is the agent that is the host of a task. A registry keeps copies:
// the caller may change Key and Data after the call that passed them, and what
// Lookup and Watch return is the caller's.
type Owner struct {
	Gateway  string            // the gateway that has the agent's tunnel
	Key      ed25519.PublicKey // identifies the agent across reconnects
	IssuedAt time.Time         // generation: when the agent's token was issued
	Data     []byte            // what the gateway wants to find again; opaque
}

// A Claim is an owner's hold on its task.
type Claim interface {
	// Lost is closed when the claim has ended: a newer one took over, it was
	// released, or the registry can no longer vouch for it.
	Lost() <-chan struct{}

	// Release gives the task up. It leaves a newer claim alone, and does
	// nothing when the claim has ended.
	Release() error
}

// State is what a watcher sees of a task.
type State struct {
	Registered bool
	Owner      Owner // zero unless Registered
}
