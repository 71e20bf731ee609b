package gateway

import (
	"context"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// watchRevoked ends the connections of guests whose keys are revoked, by the files
// of settings that have just come into force.
func (s *Server) watchRevoked(revoked *auth.RevokedFiles) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revokedEnd != nil {
		s.revokedEnd()
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.revokedEnd = cancel
	go s.track(func() { revoked.Watch(ctx, s.endRevoked) })
}

// endRevoked throws out those whose keys check refuses.
func (s *Server) endRevoked(check func(ssh.PublicKey) error) {
	s.mu.Lock()
	guests := slices.Collect(maps.Keys(s.guests))
	s.mu.Unlock()
	out := map[*guest]bool{}
	for _, g := range guests {
		if g.identity.Key == nil {
			continue
		}
		if err := check(g.identity.Key); err != nil {
			g.log.Warn("the key of a guest who is in was revoked", "error", err)
			out[g] = true
		}
	}
	if len(out) > 0 {
		s.kickGuests(func(g *guest) bool { return out[g] }, endedByRevocation, "your key, or the certificate of it, has been revoked")
	}
}

// expelled says why a guest would not sign in any more: what the operator has
// changed while it did.
func (s *Server) expelled(g *guest) (ender, error) {
	if block := s.blocked(g); block != nil {
		return endedByBlock, block.err()
	}
	if g.identity.Key == nil {
		return "", nil
	}
	return endedByRevocation, s.settings.Load().Revoked.Check(g.identity.Key)
}

// aboutRevoked says whether a list names the key.
func (e *Explanation) aboutRevoked(revoked *auth.RevokedFiles, key ssh.PublicKey) {
	if err := revoked.Check(key); err != nil {
		e.say(verdictNo, "%s", strings.TrimPrefix(err.Error(), auth.ErrDenied.Error()+": "))
	}
}
