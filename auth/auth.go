// Package auth says who may enter a task and what they may do there:
// identities, grants, host tokens, guest certificates, and the one table of
// permissions that gateway and agent both enforce.
//
// A gateway asks an [Authorizer] once a guest has proved an identity, and then
// consults the table for everything the guest's connection, or the host's,
// tries to start:
//
//	operators, err := auth.ParseAuthorizedKeys("authorized_keys", data)
//	...
//	guests := auth.AnyOf{auth.GrantKeys{}, operators}
//	permissions, err := guests.Authorize(ctx, identity, auth.Task{ID: id, Grant: grant})
//	...
//	err = auth.AllowChannel(permissions, auth.Guest, newChannel.ChannelType(), newChannel.ExtraData())
//
// Whatever is absent is refused: nil permissions permit nothing, an authorizer
// without keys admits nobody.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/ssh"
)

// ErrDenied is what every refusal of an [Authorizer] or of the table wraps. Its
// text names no task and no reason, so that it may be shown to a stranger; what
// is wrapped around it is for the log.
var ErrDenied = errors.New("permission denied")

// An Identity is who is signing in, as far as it has been proved. Build it from
// what was verified, never from a key that was only offered.
type Identity struct {
	// Name is for logs and for the guest's certificate. It is filled from the
	// permissions that Authorize returned, see IdentityName.
	Name   string
	Method string         // the SSH authentication method that was completed: "publickey", "password", …
	Key    ssh.PublicKey  // the key that signed; nil for methods without one
	Person *Person        // who signed in by a browser, now or when the key was remembered; nil: nobody did
	Remote netip.AddrPort // where the guest connects from; the zero value meets no restriction of addresses
}

// A Task is what a guest wants to enter.
type Task struct {
	ID    TaskID
	Grant *Grant // what the task's host token says; nil when no host is registered or its token grants nothing
}

// An Authorizer decides whether an identity may enter a task. It returns what
// the guest may do there, a value of its own that the caller may change and
// never nil without an error. A refusal wraps [ErrDenied]; any other error
// means that the question could not be answered, and admits nobody either. It
// may be called by many goroutines at once.
type Authorizer interface {
	Authorize(ctx context.Context, id Identity, task Task) (*ssh.Permissions, error)
}

// AnyOf admits whom any of its members admits, with the permissions of the
// first that does. Without members it admits nobody.
type AnyOf []Authorizer

// Authorize asks the members in order. When all refuse, the error wraps
// [ErrDenied] and the members' errors.
func (a AnyOf) Authorize(ctx context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	errs := []error{ErrDenied}
	for _, member := range a {
		if member == nil {
			continue
		}
		p, err := member.Authorize(ctx, id, task)
		if err == nil && p != nil {
			return p, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return nil, &refusals{errs}
}

// refusals joins errors on one line: errors.Join would break a log line in two.
type refusals struct{ errs []error }

func (r *refusals) Error() string {
	text := ""
	for i, err := range r.errs {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}

func (r *refusals) Unwrap() []error { return r.errs }

// denied makes a refusal for the log: why, wrapped around ErrDenied.
func denied(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDenied, fmt.Sprintf(format, args...))
}
