package gateway

import (
	"bytes"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// samePolicy tells whether agents would be told the same by two policies.
func samePolicy(a, b *ssh.Permissions) bool {
	if a == b {
		return true
	}
	x, xerr := auth.MarshalPolicy(a)
	y, yerr := auth.MarshalPolicy(b)
	return xerr == nil && yerr == nil && (a == nil) == (b == nil) && bytes.Equal(x, y)
}

// renarrow has agents dial again when the policy has changed: they hold
// end-to-end guests, whom nobody else can narrow, to that of their Welcome.
func (s *Server) renarrow(before, after *ssh.Permissions) {
	if samePolicy(before, after) {
		return
	}
	s.log.Info("agents dial again: what guests may do at most has changed")
	s.tellHosts(tunnel.Message{Type: tunnel.TypeDrain})
}
