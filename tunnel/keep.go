package tunnel

import (
	"context"
	"net"
	"time"
)

// StateKind tells the States of Keep apart.
type StateKind int

// What Keep is doing.
const (
	StateDialing   StateKind = iota // about to dial
	StateConnected                  // Welcome holds what the gateway answered
	StateLost                       // Err: why a tunnel or an attempt was lost; the next attempt is in RetryIn
	StateDraining                   // the gateway goes down: dialing another while the old tunnel is served
	StateRefused                    // Err: a *Refusal, after which Keep ends
)

// State is what a Dialer tells its OnState.
type State struct {
	Kind    StateKind
	Welcome Welcome
	Err     error
	RetryIn time.Duration
}

// Keep keeps a tunnel up.
func (d *Dialer) Keep(ctx context.Context, serve func(net.Listener) error) error { panic("todo") }
