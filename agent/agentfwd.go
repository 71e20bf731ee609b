package agent

import "errors"

// forwardAgent makes a socket for the session by which its programs reach the guest's ssh-agent.
func (s *session) forwardAgent() error { return errors.New("not supported") }

// closeAgentForward removes that socket.
func (s *session) closeAgentForward() {}

// setAgentEnviron tells the program where the socket is.
func (s *session) setAgentEnviron(*environ) {}
