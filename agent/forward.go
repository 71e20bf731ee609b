package agent

import "golang.org/x/crypto/ssh"

// serveDirectTCPIP connects a guest to an address in the host's network, RFC 4254 §7.2.
func (g *guest) serveDirectTCPIP(nc ssh.NewChannel) {
	nc.Reject(ssh.Prohibited, "forwarding is not supported by this host")
}

// serveDirectStreamlocal connects a guest to a socket on the host (OpenSSH PROTOCOL, section 2.4).
func (g *guest) serveDirectStreamlocal(nc ssh.NewChannel) {
	nc.Reject(ssh.Prohibited, "forwarding is not supported by this host")
}
