package gateway

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
)

// accountsTimeout bounds how long a host waits to be registered because forges
// are slow. What is not known by then counts when it is.
const accountsTimeout = 5 * time.Second

// accountKeys are the keys that accounts on forges have, as in keyIndex.
type accountKeys map[forge.Account][]string

// lookUpAccounts finds the keys of the accounts that a grant names.
func lookUpAccounts(ctx context.Context, log *slog.Logger, settings *Settings, task auth.Task) accountKeys {
	forges := settings.Forges
	accounts := slices.DeleteFunc(forge.OfGrant(task), func(a forge.Account) bool {
		// They have no keys, and are asked who they are when they come.
		return settings.SignIn.provider(a.Forge) != nil && (forges == nil || forges.Check(a) != nil)
	})
	if len(accounts) == 0 {
		return nil
	}
	log = log.With("task", string(task.ID))
	if forges == nil {
		log.Warn("the grant names accounts, but this gateway asks no forge", "accounts", task.Grant.Accounts)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, accountsTimeout)
	defer cancel()
	keys := make(accountKeys)
	for _, r := range forges.Expand(ctx, accounts) {
		keys[r.Account] = resultKeys(r)
		if r.Err != nil {
			log.Warn("an account's keys do not count for now", "account", r.Account.String(), "error", r.Err)
		}
	}
	return keys
}

func resultKeys(r forge.Result) []string {
	ids := make([]string, len(r.Keys)) // none after an error
	for i, key := range r.Keys {
		ids[i] = keyID(key)
	}
	return ids
}

// watchForges keeps the keys of all accounts in use current, by the forges of
// settings that have just come into force.
func (s *Server) watchForges(forges *forge.Resolver) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forges == forges {
		return
	}
	if s.forgesEnd != nil {
		s.forgesEnd()
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.forges, s.forgesEnd = forges, cancel
	if forges != nil {
		go s.track(func() { forges.Watch(ctx, s.accountsInUse, s.accountsFound) })
	}
}

// accountsInUse are those that the grants of registered hosts name.
func (s *Server) accountsInUse() []forge.Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []forge.Account
	for _, h := range s.hosts {
		all = append(all, slices.Collect(maps.Keys(h.accounts))...)
	}
	return all
}

// accountsFound has the grants name the keys that accounts have now.
func (s *Server) accountsFound(results []forge.Result) {
	found := make(accountKeys, len(results))
	for _, r := range results {
		found[r.Account] = resultKeys(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hosts {
		if !h.accounts.changed(found) {
			continue
		}
		now := maps.Clone(h.accounts) // others may hold the registration
		for account := range now {
			if ids, ok := found[account]; ok {
				now[account] = ids
			}
		}
		before := h.named()
		h.accounts = now
		s.keys.replace(h.task, before, h.named())
	}
}

// changed tells whether something else was found for one of the accounts.
func (k accountKeys) changed(found accountKeys) bool {
	for account, ids := range k {
		if now, ok := found[account]; ok && !slices.Equal(ids, now) {
			return true
		}
	}
	return false
}

// named are all keys that the grant names, by themselves and by account.
func (r *registration) named() []string {
	ids := slices.Clone(r.keys)
	for _, keys := range r.accounts {
		ids = append(ids, keys...)
	}
	return ids
}
