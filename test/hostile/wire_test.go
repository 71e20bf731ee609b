package hostile

import (
	"net"
	"time"

	"github.com/stagedoor/stagedoor/internal/sshwire"
)

// A wire is a client that can send what no sane one sends.
type wire struct {
	*sshwire.Conn
	conn net.Conn
}

// Message numbers of RFC 4250.
const (
	msgServiceAccept = 6
	msgKexInit       = 20
	msgNewKeys       = 21
	msgAuthFailure   = 51
	msgAuthSuccess   = 52
)

// newWire shakes hands over c. It does not sign in.
func newWire(c net.Conn) (*wire, error) {
	c.SetDeadline(time.Now().Add(patience))
	p, err := sshwire.Client(c)
	return &wire{p, c}, err
}
