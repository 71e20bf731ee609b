package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// agentForward is the socket by which the programs of one session reach the guest's ssh-agent.
//
// Under sshd all sessions of a connection share a socket, also those that did not ask for one, and it is there for as long as
// the connection, which a ControlMaster keeps for days. Here it is the session's: who asked has it, and what a session leaves
// behind can use the guest's keys no longer.
type agentForward struct {
	path      string
	listening *listening
}

// agentChannels are the channels that belong to the requests for agent forwarding: OpenSSH's, and that of the IETF's draft.
var agentChannels = map[string]string{
	"auth-agent-req@openssh.com": "auth-agent@openssh.com",
	"agent-req":                  "agent-connect",
}

// forwardAgent makes the socket that a request asks for.
func (s *session) forwardAgent(requestType string, payload []byte) error {
	switch {
	case len(payload) > 0:
		return errTrailing
	case s.started || s.agent != nil:
		return errors.New("the session has an agent or a program already")
	case runtime.GOOS == "windows":
		return errors.New("not supported on Windows")
	}
	f, err := s.listenForAgent(agentChannels[requestType])
	if err != nil {
		s.guest.log.Warn("no agent forwarding for the guest", "error", err)
		return err
	}
	s.agent = f
	s.serveOwn(f.listening)
	return nil
}

func (s *session) listenForAgent(channelType string) (*agentForward, error) {
	dir, err := s.private()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fmt.Sprintf("agent.%d", os.Getpid()))
	socket, _, err := listenPrivately(s.guest, path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.guest.ctx)
	l := s.guest.newListening(listenKey{network: "unix", address: path}, []net.Listener{boundListener{socket, ctx}})
	l.opening = func(net.Addr) (string, []byte) { return channelType, nil }
	l.cleanUp = func() {
		cancel()
		os.Remove(path)
	}
	return &agentForward{path, l}, nil
}

// closeAgentForward ends the socket and the connections to it.
func (s *session) closeAgentForward() {
	if s.agent != nil {
		s.agent.listening.close()
	}
}

// setAgentEnviron tells the program where the socket is. Without one, an agent of the task's own stays what it is.
func (s *session) setAgentEnviron(env *environ) {
	if s.agent != nil {
		env.set("SSH_AUTH_SOCK", s.agent.path)
		env.remove("SSH_AGENT_PID") // is that of another agent
	}
}
