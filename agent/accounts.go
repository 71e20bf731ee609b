package agent

import (
	"context"
	"slices"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
)

// accountsWait is how long a guest waits who comes while accounts are looked up for the first time.
const accountsWait = 5 * time.Second

// accounts are those on forges whose keys the grant lets in.
func (s *Server) accounts() []forge.Account {
	return forge.OfGrant(auth.Task{Grant: s.Grant})
}

// namesAccounts tells whether the keys of one of them can be looked up here.
func (s *Server) namesAccounts() bool {
	return s.Forges != nil && slices.ContainsFunc(s.accounts(), func(a forge.Account) bool { return s.Forges.Check(a) == nil })
}

// watchAccounts keeps the keys of accounts current until ctx ends. Nobody but this host looks them up for guests who sign in end
// to end: the gateway's word does not count there.
func (s *Server) watchAccounts(ctx context.Context) {
	if s.Forges == nil {
		if len(s.Grant.Accounts) > 0 {
			s.logger().Warn("end to end is closed for the accounts that the grant names: no forge is asked", "accounts", s.Grant.Accounts)
		}
		return
	}
	if len(s.accounts()) == 0 {
		return
	}
	closed := map[forge.Account]bool{}
	s.Forges.Watch(ctx, s.accounts, func(results []forge.Result) {
		for _, r := range results {
			log := s.logger().With("account", r.Account.String())
			switch {
			case r.Err != nil && !closed[r.Account]:
				log.Warn("end to end is closed for an account: its keys cannot be looked up from here", "error", r.Err)
			case r.Err == nil && closed[r.Account]:
				log.Info("end to end is open for an account again", "keys", len(r.Keys))
			}
			closed[r.Account] = r.Err != nil
		}
	})
}
