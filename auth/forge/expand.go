package forge

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxExpanding is how many accounts one Expand looks up side by side.
const maxExpanding = 8

// A Result is what was found out about one account.
type Result struct {
	Account Account
	// Name is what a guest with one of the keys is called: forge:login with the
	// login that the account has now, which a pinned ID may have led to, or
	// forge:#id where the forge does not tell. Empty with an error.
	Name string
	Keys []ssh.PublicKey
	Err  error // wraps ErrNoAccount or ErrUnavailable; nil: Keys are all that there are
}

// Lines returns the keys as an authorized_keys file has them, with Name for a
// comment.
func (r Result) Lines() []string {
	lines := make([]string, len(r.Keys))
	for i, key := range r.Keys {
		lines[i] = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + r.Name
	}
	return lines
}

// Expand looks up accounts side by side, as Keys does, until ctx ends. It returns
// one result for each, in their order: some may be errors and others not. Call it
// when a host registers, with a deadline.
func (r *Resolver) Expand(ctx context.Context, accounts []Account) []Result {
	return r.expand(ctx, accounts, r.config.FreshFor)
}

func (r *Resolver) expand(ctx context.Context, accounts []Account, freshFor time.Duration) []Result {
	results := make([]Result, len(accounts))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(maxExpanding, len(accounts)) {
		workers.Go(func() {
			for i := range next {
				results[i] = r.result(ctx, accounts[i], freshFor)
			}
		})
	}
	for i := range accounts {
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

func (r *Resolver) result(ctx context.Context, a Account, freshFor time.Duration) Result {
	f, err := r.resolve(ctx, a, freshFor)
	if err != nil {
		return Result{Account: a, Err: err}
	}
	return Result{Account: a, Name: a.named(f.login), Keys: f.publicKeys(r.config.Now())}
}

// Refresh looks up those of the accounts again whose answer is older than half of
// Config.FreshFor, and those that failed more than Config.NegativeFor ago. It
// returns as Expand does.
func (r *Resolver) Refresh(ctx context.Context, accounts []Account) []Result {
	return r.expand(ctx, accounts, r.config.FreshFor/2)
}

// Watch calls Refresh, for the accounts that are in use at the time, until ctx
// ends: every Config.NegativeFor, or half of Config.FreshFor when that is less.
// While it runs, an answer that is used for signing in is no older than FreshFor
// and the time that a look-up takes, or its forge does not answer. Accounts that
// cannot be looked up are logged once, until they can. After each round found,
// unless it is nil, is called with what there is of all of them.
func (r *Resolver) Watch(ctx context.Context, accounts func() []Account, found func([]Result)) {
	tick := time.NewTicker(min(r.config.NegativeFor, r.config.FreshFor/2))
	defer tick.Stop()
	failing := map[Account]bool{}
	for {
		results := r.Refresh(ctx, r.inTurn(accounts()))
		if ctx.Err() != nil {
			return
		}
		failing = r.logFailing(results, failing)
		if found != nil {
			found(results)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// logFailing logs accounts that could be looked up before, and returns all that
// cannot now.
func (r *Resolver) logFailing(results []Result, failing map[Account]bool) map[Account]bool {
	now := map[Account]bool{}
	for _, result := range results {
		if result.Err == nil {
			continue
		}
		now[result.Account] = true
		if !failing[result.Account] {
			r.config.Log.Warn("keys of an account cannot be looked up", "account", result.Account.String(), "error", result.Err)
		}
	}
	return now
}

// inTurn puts those first that were not asked for the longest: should there be
// too many for the requests that may be made, all are late in the same way.
func (r *Resolver) inTurn(accounts []Account) []Account {
	r.mu.Lock()
	defer r.mu.Unlock()
	tried := map[Account]time.Time{}
	for _, a := range accounts {
		tried[a] = time.Time{}
		if at := r.entries[a]; at != nil {
			tried[a] = at.Value.(*entry).tried
		}
	}
	return slices.SortedFunc(maps.Keys(tried), func(a, b Account) int {
		return cmp.Or(tried[a].Compare(tried[b]), strings.Compare(a.String(), b.String()))
	})
}
