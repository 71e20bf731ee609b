package person

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/wildcard"
)

// A Rule lets in people whom the operator means.
type Rule struct {
	Provider string
	// Claims are values of which a person must have one for each name; * in them
	// stands for any characters. None: everybody whom the provider knows.
	Claims map[string][]string
	Tasks  []string // patterns of the same kind; none: every task
}

// An Authorizer is an [auth.Authorizer] that lets people into tasks: those whose
// accounts a task's grant names, and those of the operator's rules.
type Authorizer struct {
	Rules []Rule
	Now   func() time.Time // the clock for the grant's end; nil: time.Now
}

// Source is what an operator calls this way in.
func (*Authorizer) Source() string { return "people who signed in by a browser" }

// Authorize admits an identity with a Person. Those of the grant get what it
// permits, for as long as it lasts; those of a rule auth.DefaultPermissions.
func (a *Authorizer) Authorize(_ context.Context, id auth.Identity, task auth.Task) (*ssh.Permissions, error) {
	if id.Person == nil {
		return nil, denied("nobody signed in by a browser, or is remembered to have")
	}
	p := a.permitted(id.Person, task)
	if p == nil {
		return nil, denied("%s may not enter: neither the grant nor a rule names them", id.Person.Name())
	}
	p.Extensions[auth.ExtIdentity] = id.Person.Name()
	return p, nil
}

func (a *Authorizer) permitted(who *auth.Person, task auth.Task) *ssh.Permissions {
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	g := task.Grant
	if g != nil && (g.Until.IsZero() || now().Before(g.Until)) && slices.ContainsFunc(g.Accounts, func(entry string) bool { return names(entry, who) }) {
		return g.Permitted()
	}
	if slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.admits(who, task.ID) }) {
		return auth.DefaultPermissions()
	}
	return nil
}

// names tells whether an account of a grant is a person's. With an ID, that alone
// decides: logins change hands.
func names(entry string, who *auth.Person) bool {
	provider, account, _ := strings.Cut(entry, ":")
	login, id, pinned := strings.Cut(account, "#")
	switch {
	case !strings.EqualFold(provider, who.Provider):
		return false
	case pinned:
		return id == who.ID
	}
	return login != "" && strings.EqualFold(login, who.Login)
}

func (r Rule) admits(who *auth.Person, task auth.TaskID) bool {
	if r.Provider != who.Provider {
		return false
	}
	if len(r.Tasks) > 0 && !matchAny(r.Tasks, []string{string(task)}) {
		return false
	}
	for name, patterns := range r.Claims {
		if !matchAny(patterns, who.Claims[name]) {
			return false
		}
	}
	return true
}

func matchAny(patterns, values []string) bool {
	return slices.ContainsFunc(values, func(value string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool { return wildcard.Match(pattern, value) })
	})
}

// Relevant is a person with those claims alone that a rule asks for, to be kept.
func (a *Authorizer) Relevant(who *auth.Person) *auth.Person {
	kept := *who
	kept.Claims = map[string][]string{}
	for _, rule := range a.Rules {
		for name := range maps.Keys(rule.Claims) {
			if values, ok := who.Claims[name]; ok && rule.Provider == who.Provider {
				kept.Claims[name] = values
			}
		}
	}
	return &kept
}

func denied(format string, args ...any) error {
	return fmt.Errorf("%w: %s", auth.ErrDenied, fmt.Sprintf(format, args...))
}
