package main

import (
	"context"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// mostPermissions are the most that guests may do, nil when that is everything.
func (c *Config) mostPermissions() *ssh.Permissions {
	most := auth.Grant{Permissions: []string{}, PermitOpen: c.Guests.PermitOpen, PermitListen: c.Guests.PermitListen}
	for _, s := range c.Guests.Permissions {
		if name, err := parsePermission(s); err == nil {
			most.Permissions = append(most.Permissions, name)
		}
	}
	p := most.Permitted()
	if len(p.Extensions) == len(auth.FullPermissions().Extensions) && len(p.CriticalOptions) == 0 {
		return nil
	}
	return p
}

// narrowed is an Authorizer that grants at most some permissions.
type narrowed struct {
	auth.Authorizer
	most *ssh.Permissions
}

// Unwrap returns the Authorizer below, for who asks what each one says.
func (n narrowed) Unwrap() auth.Authorizer { return n.Authorizer }

// noTouchRequired is an option of security keys that permits nothing, so that
// narrowing has to leave it alone.
const noTouchRequired = "no-touch-required"

// Authorize asks the Authorizer below, and takes away what is not allowed here.
func (n narrowed) Authorize(ctx context.Context, id auth.Identity, task auth.Task) (*ssh.Permissions, error) {
	p, err := n.Authorizer.Authorize(ctx, id, task)
	if err != nil {
		return nil, err
	}
	most := &ssh.Permissions{CriticalOptions: n.most.CriticalOptions, Extensions: map[string]string{noTouchRequired: ""}}
	for name := range n.most.Extensions {
		most.Extensions[name] = ""
	}
	return auth.Intersect(p, most), nil
}
