package forge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// maxReasons bounds how many accounts a refusal tells of.
const maxReasons = 3

// An Authorizer is an [auth.Authorizer] that lets the keys of accounts into a
// task. A guest is named after the account, as in [Result.Name]. Certificates are
// refused: forges list keys.
type Authorizer struct {
	Resolver *Resolver // required
	// Accounts are those that may enter a task; none for a task that nobody may
	// enter that way. It is called at each sign-in, for any task that a stranger
	// names, by many goroutines.
	Accounts func(auth.Task) []Account
	// Operator says that the accounts are of the operator's choice and not of the
	// task's grant. Then the grant plays no part: a guest gets
	// auth.DefaultPermissions. Otherwise a guest gets what the grant permits, for
	// as long as it lasts, and without a grant nobody is let in.
	Operator bool
	// Wait is how long a guest is kept waiting while accounts are looked up of
	// which nothing is known. 0: not at all; they count when Watch or Expand has
	// looked them up. A stranger can tell such a task by the wait.
	Wait time.Duration
	Now  func() time.Time // the clock for the grant's end; nil: time.Now
}

// OfGrant returns the accounts that a task's grant names, without those that no
// forge can have. It is an Authorizer's Accounts.
func OfGrant(task auth.Task) []Account {
	if task.Grant == nil {
		return nil
	}
	accounts := make([]Account, 0, len(task.Grant.Accounts))
	for _, s := range task.Grant.Accounts {
		if a, err := ParseAccount(s); err == nil && !slices.Contains(accounts, a) {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// Authorize admits an identity whose key is one of an account's, by what is known
// of the accounts.
func (a *Authorizer) Authorize(ctx context.Context, id auth.Identity, task auth.Task) (*ssh.Permissions, error) {
	if a.Resolver == nil || a.Accounts == nil {
		return nil, denied("no forge is asked")
	}
	if _, certificate := id.Key.(*ssh.Certificate); id.Key == nil || certificate {
		return nil, denied("no plain key, as forges list them")
	}
	wire := string(id.Key.Marshal())
	p, err := a.permitted(task)
	if err != nil {
		return nil, err
	}
	accounts := a.Accounts(task)
	name, unknown := a.find(wire, accounts)
	if name == "" && len(unknown) > 0 && a.Wait > 0 {
		a.wait(ctx, unknown)
		name, unknown = a.find(wire, accounts)
	}
	if name == "" {
		return nil, a.refusal(accounts, unknown)
	}
	p.Extensions[auth.ExtIdentity] = name
	return p, nil
}

func (a *Authorizer) permitted(task auth.Task) (*ssh.Permissions, error) {
	g := task.Grant
	switch {
	case a.Operator:
		return auth.DefaultPermissions(), nil
	case g == nil:
		return nil, denied("no grant for the task")
	case !g.Until.IsZero() && !a.now().Before(g.Until):
		return nil, denied("grant ended at %s", g.Until.UTC().Format(time.RFC3339))
	}
	return g.Permitted(), nil
}

func (a *Authorizer) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// find returns the name of the first account that has the key, and of which
// accounts nothing is known.
func (a *Authorizer) find(wire string, accounts []Account) (name string, unknown []Account) {
	now := a.Resolver.config.Now()
	for _, account := range accounts {
		f := a.Resolver.known(account)
		if f == nil {
			unknown = append(unknown, account)
			continue
		}
		if name == "" && f.has(wire, now) {
			name = account.named(f.login)
		}
	}
	return name, unknown
}

func (a *Authorizer) wait(ctx context.Context, accounts []Account) {
	ctx, cancel := context.WithTimeout(ctx, a.Wait)
	defer cancel()
	a.Resolver.Expand(ctx, accounts) // what failed is told by what stays unknown
}

// refusal says for the log why a key was not found.
func (a *Authorizer) refusal(accounts, unknown []Account) error {
	reason := "key is not one of the accounts' that may enter"
	if len(accounts) == 0 {
		reason = "no account may enter"
	}
	var names []string
	for _, account := range unknown[:min(maxReasons, len(unknown))] {
		names = append(names, account.String())
	}
	if len(names) > 0 {
		reason += fmt.Sprintf("; %d not looked up yet, or no more: %s", len(unknown), strings.Join(names, ", "))
	}
	return denied("%s", reason)
}

// denied makes a refusal for the log.
func denied(format string, args ...any) error {
	return fmt.Errorf("%w: %s", auth.ErrDenied, fmt.Sprintf(format, args...))
}
