package gateway

import (
	"crypto/ed25519"
	"slices"

	"github.com/stagedoor/stagedoor/tunnel"
)

// renewalKey is the public half of the key that signs renewals.
func (s *Settings) renewalKey() ed25519.PublicKey { return s.RenewalKey.Public().(ed25519.PublicKey) }

// renewalKeys are those whose renewals let agents come back.
func (s *Settings) renewalKeys() []ed25519.PublicKey {
	return append([]ed25519.PublicKey{s.renewalKey()}, s.OtherRenewalKeys...)
}

// outdated says what a Welcome by these settings would tell an agent otherwise
// than one by settings from before; "" for nothing. A renewal that does not count
// any more is no reason to dial again: the agent would be sent away.
func (s *Settings) outdated(before *Settings) string {
	switch {
	case !samePolicy(before.Policy, s.Policy):
		return "what guests may do at most has changed"
	case !before.renewalKey().Equal(s.renewalKey()) && slices.ContainsFunc(s.renewalKeys(), func(k ed25519.PublicKey) bool { return k.Equal(before.renewalKey()) }):
		return "renewals are signed with another key"
	}
	return ""
}

// redial has agents dial again when their Welcome does not hold any more: they hold
// end-to-end guests, whom nobody else can narrow, to its policy, and need a renewal
// by the new key before the old one goes.
func (s *Server) redial(before, after *Settings) {
	if why := after.outdated(before); why != "" {
		s.log.Info("agents dial again: " + why)
		s.tellHosts(tunnel.Message{Type: tunnel.TypeDrain})
	}
}
