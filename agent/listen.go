package agent

// handleForward begins and cancels what a guest asks the host to listen for, RFC 4254 §7.1 and OpenSSH PROTOCOL, section 2.4.
func (g *guest) handleForward(requestType string, payload []byte) (ok bool, reply []byte) {
	return false, nil
}

// closeForwards ends all that this connection made the host listen for.
func (g *guest) closeForwards() {}
