package agent

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// session is one channel of type session: what its guest has asked for so far, and the program once it runs.
type session struct {
	guest *guest
	ch    ssh.Channel
	gone  chan struct{} // closed when the guest has closed the channel, or the connection is lost
	cut   chan struct{} // closed when what runs is to end: the same, or the host ends the session
	wg    sync.WaitGroup

	cutting  sync.Once              // closes cut
	farewell atomic.Pointer[string] // what the guest reads last; set before the host closes cut
	notices  chan notice            // for the guest, while a program runs on a terminal

	replying sync.Mutex // held until a request has its reply: a program that a signal ends must not have CLOSE sent before

	output      sync.Mutex // held while sftp writes; guards outputEnded
	outputEnded bool

	// Only the request loop uses these until a program has started; it changes none of them afterwards.
	env      guestEnv
	term     *terminal // nil without pty-req. A program that started on it owns it.
	termName string
	started  bool
	proc     *process // nil without a program, and for sftp
	view     *view    // of the program

	privateDir string        // empty until private was called
	agent      *agentForward // nil without agent forwarding
	display    *display      // nil without X11 forwarding
}

// serveSession serves an accepted channel until the guest has closed it and all that ran on it has ended.
func (g *guest) serveSession(ch ssh.Channel, requests <-chan *ssh.Request) {
	limits := g.server.Limits.withDefaults()
	s := &session{
		guest: g,
		ch:    ch,
		gone:  make(chan struct{}),
		cut:   make(chan struct{}),
		env:   guestEnv{patterns: g.server.AcceptEnv, variables: limits.EnvVariables, bytes: limits.EnvBytes},
	}
	defer s.close()
	s.goSafely(s.discardStderr)
	s.serveRequests(requests)
}

// close waits for what runs, now that the channel is closed.
func (s *session) close() {
	close(s.gone)
	s.cutting.Do(func() { close(s.cut) })
	s.wg.Wait()
	s.guest.stopped(s)
	if s.term != nil {
		s.term.close()
	}
	s.closeAgentForward()
	s.closeX11()
	s.removePrivate()
}

// goSafely runs f beside the request loop. A panic in it ends the session alone.
func (s *session) goSafely(f func()) {
	s.wg.Go(func() {
		defer recoverTo(s.guest.log, func() { s.ch.Close() })
		f()
	})
}

// discardStderr reads what no client sends. Unread it would eat up the window that stdin shares with it.
func (s *session) discardStderr() { io.Copy(io.Discard, s.ch.Stderr()) }

// serveRequests answers requests until the channel is closed. It never waits for the program: 16 unread requests would stall
// every channel of the connection.
func (s *session) serveRequests(requests <-chan *ssh.Request) {
	for r := range requests {
		if run := s.serveRequest(r); run != nil {
			s.goSafely(run) // after the reply, so that output never precedes it
		}
	}
}

// serveRequest answers a request and replies. run, when not nil, is to be called then.
func (s *session) serveRequest(r *ssh.Request) (run func()) {
	s.replying.Lock()
	defer s.replying.Unlock()
	run, err := s.answer(r)
	switch {
	case errors.Is(err, auth.ErrDenied) || err != nil && r.Type == "subsystem":
		s.guest.refused("refused a request", r.Type, err)
	case err != nil:
		s.guest.log.Debug("request failed", "type", clipped(r.Type), "error", err)
	}
	r.Reply(err == nil, nil)
	return run
}

// answer does what a request asks for. run, when not nil, is to be called once the guest was told that it is under way.
func (s *session) answer(r *ssh.Request) (run func(), err error) {
	if err := s.guest.allowRequest(r.Type, r.Payload); err != nil {
		return nil, err
	}
	switch r.Type {
	case "pty-req":
		return nil, s.allocate(r.Payload)
	case "env":
		return nil, s.setenv(r.Payload)
	case "shell", "exec", "subsystem":
		return s.start(r.Type, r.Payload)
	case "window-change":
		return nil, s.resize(r.Payload)
	case "signal":
		return nil, s.signal(r.Payload)
	case "break":
		return nil, s.interrupt(r.Payload)
	case "auth-agent-req@openssh.com", "agent-req":
		return nil, s.forwardAgent(r.Type, r.Payload)
	case "x11-req":
		return nil, s.forwardX11(r.Payload)
	case "eow@openssh.com":
		return nil, s.stopOutput(r.Payload)
	}
	return nil, errors.New("not supported")
}

// allowRequest asks the table of permissions.
func (g *guest) allowRequest(requestType string, payload []byte) error {
	return auth.AllowRequest(g.permissions(), auth.Guest, "session", requestType, payload)
}

// allocate makes the terminal of a pty-req, RFC 4254 §6.2.
func (s *session) allocate(payload []byte) error {
	req, err := parseTerminalRequest(payload)
	if err != nil {
		return err
	}
	if s.term != nil || s.started {
		return errors.New("the session has a terminal or a program already")
	}
	t, err := openTerminal(winsize{req.Columns, req.Rows, req.Width, req.Height}, req.Modes)
	if err != nil {
		s.guest.log.Warn("no terminal for the guest", "error", err)
		s.goSafely(func() { fmt.Fprintf(s.ch.Stderr(), "stagedoor: no terminal: %v\r\n", err) })
		return err
	}
	s.term, s.termName = t, req.Term
	return nil
}

// setenv notes a variable for the program, RFC 4254 §6.4.
func (s *session) setenv(payload []byte) error {
	name, value, err := parseEnv(payload)
	if err != nil {
		return err
	}
	if s.started || !s.env.set(name, value) {
		return fmt.Errorf("variable %.64q is not accepted", name)
	}
	return nil
}

// resize applies a window-change, RFC 4254 §6.7. The kernel gathers what comes faster than programs look.
func (s *session) resize(payload []byte) error {
	size, err := parseWindowChange(payload)
	if err != nil {
		return err
	}
	if s.term == nil {
		return errors.New("the session has no terminal")
	}
	return s.term.resize(size)
}

// signal delivers a signal, RFC 4254 §6.9. A forced command is not the guest's to signal; sshd refuses that too.
func (s *session) signal(payload []byte) error {
	name, err := parseText(payload)
	if err != nil {
		return err
	}
	if _, forced := auth.ForcedCommand(s.guest.permissions()); forced {
		return errors.New("the command is a forced one")
	}
	if s.proc == nil {
		return errors.New("no program runs")
	}
	return s.proc.signal(name)
}

// interrupt handles a break, RFC 4335. Its length means nothing to a PTY.
func (s *session) interrupt(payload []byte) error {
	if _, err := parseBreak(payload); err != nil {
		return err
	}
	if s.proc == nil {
		return errors.New("no program runs")
	}
	return s.proc.interrupt()
}
