package gateway

import (
	"bytes"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
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
