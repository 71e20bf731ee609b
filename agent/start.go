package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/printable"
)

// Kinds of sessions, as SessionInfo names them.
const (
	KindShell = "shell"
	KindExec  = "exec"
	KindSFTP  = "sftp"
)

// internalSFTP as a forced command means the server in this process, as under sshd.
const internalSFTP = "internal-sftp"

// plan is what a session is about to run.
type plan struct {
	kind     string
	command  string // of KindExec
	original string // what the guest asked for, when something else is forced

	verb   []string // to be answered without any program
	direct []string // the program and its arguments, to be run without a shell
	dir    string   // where direct runs; empty: where all sessions do
	rerun  bool     // direct is the command of the job
}

// start begins what shell, exec or subsystem asks for, RFC 4254 §6.5. One session runs one thing.
func (s *session) start(requestType string, payload []byte) (run func(), err error) {
	if s.started {
		return nil, errors.New("the session runs something already")
	}
	p, err := s.plan(requestType, payload)
	if err != nil {
		return nil, err
	}
	s.started = true
	if p.verb != nil {
		s.guest.begins(s) // so that a guest who ends the agent by it still gets the exit status
		return func() { s.finish(s.runVerb(p.verb)) }, nil
	}
	s.view = &view{server: s.guest.server, out: s.ch, aside: s.ch.Stderr(), terminal: s.term != nil && p.kind != KindSFTP}
	if p.kind == KindSFTP {
		return s.runner(p, s.runSFTP), nil
	}
	c, notice := s.command(p)
	proc, failure := startProcess(c)
	if failure != nil {
		s.guest.log.Warn("program not started", "shell", c.path, "dir", c.dir, "error", failure)
		return s.runner(p, func() exit { return s.fail(c, failure) }), nil
	}
	s.proc = proc
	return s.runner(p, func() exit {
		if p.kind == KindShell && s.term != nil {
			notice += s.greeting() // now that this guest counts as attached
		}
		e := s.runProcess(proc, notice)
		if p.rerun {
			s.guest.server.agent.Reran(s.guest.ctx, e.shellStatus())
		}
		return e
	}), nil
}

// plan reads a request, and puts the forced command in its place if there is one.
func (s *session) plan(requestType string, payload []byte) (plan, error) {
	p := plan{kind: KindShell}
	var text string
	var err error
	if requestType == "shell" {
		err = parseNothing(payload)
	} else {
		text, err = parseText(payload)
		p = plan{kind: KindExec, command: text}
	}
	if err != nil {
		return plan{}, err
	}
	forced, isForced := auth.ForcedCommand(s.guest.permissions())
	switch {
	case isForced && forced == internalSFTP:
		return plan{kind: KindSFTP}, nil
	case isForced:
		return plan{kind: KindExec, command: forced, original: text}, nil
	case requestType == "subsystem" && text == "sftp":
		return plan{kind: KindSFTP}, nil
	case requestType == "subsystem":
		return plan{}, fmt.Errorf("subsystem %.64q is not supported", text)
	case p.kind == KindShell && s.term == nil:
		// It runs whatever comes on stdin: a permission for terminals alone is not enough.
		return p, s.guest.allowRequest("exec", ssh.Marshal(struct{ Command string }{}))
	case p.kind == KindExec:
		return s.planExec(p), nil
	}
	return p, nil
}

// command builds what to start. notice is for the guest to read first.
func (s *session) command(p plan) (c command, notice string) {
	host := s.guest.server.host
	env := s.environ(p)
	c = command{path: host.shell, dir: host.dir, terminal: s.term}
	name := filepath.Base(host.shell)
	switch {
	case p.direct != nil:
		c.args, c.dir = p.direct, orElse(p.dir, c.dir)
		c.path = lookPath(p.direct[0], env.get("PATH"), c.dir)
		if isShell(p.command) {
			env.remove("ENV") // which may be what keeps the other shell from starting
			env.remove("BASH_ENV")
		}
	case p.kind == KindExec:
		c.args = []string{name, "-c", p.command}
	case !s.guest.server.LoginShell:
		c.args = []string{name}
	default:
		c.args = []string{"-" + name}
	}
	if p.kind == KindShell && !isDir(c.dir) {
		// A person can look what happened to it. A command could do harm where it does not expect to be.
		c.dir = firstDir(env.get("HOME"), os.TempDir(), "/")
		notice = fmt.Sprintf("stagedoor: the task's directory %s is not there, starting in %s\r\n", host.dir, c.dir)
	}
	env.set("PWD", c.dir)
	c.env = env
	return c, notice
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func firstDir(candidates ...string) string {
	for _, dir := range candidates {
		if isDir(dir) {
			return dir
		}
	}
	return ""
}

// environ makes the program's environment: the task's, then what the guest may set, then what is ours to say.
func (s *session) environ(p plan) environ {
	host, remote, local := s.guest.server.host, s.guest.remote, s.guest.local
	env := taskEnviron(host.env)
	for _, entry := range s.env.vars {
		name, value, _ := strings.Cut(entry, "=")
		env.set(name, value)
	}
	env.setDefault("HOME", host.home)
	env.setDefault("USER", host.user)
	env.setDefault("LOGNAME", env.get("USER"))
	env.setDefault("PATH", defaultPath)
	env.set("SHELL", host.shell)
	env.set("SSH_CLIENT", fmt.Sprintf("%s %d", addrAndPort(remote), local.Port()))
	env.set("SSH_CONNECTION", addrAndPort(remote)+" "+addrAndPort(local))
	env.set("STAGEDOOR", "1")
	env.set("STAGEDOOR_TASK", string(s.guest.server.Task))
	s.setControlEnviron(&env)
	if s.term != nil {
		env.set("SSH_TTY", s.term.name)
		if s.termName != "" {
			env.set("TERM", s.termName)
		}
	}
	s.setAgentEnviron(&env)
	s.setX11Environ(&env)
	if p.original != "" {
		env.set("SSH_ORIGINAL_COMMAND", p.original)
	}
	return env
}

// addrAndPort writes an address as SSH_CONNECTION has it; sshd's word for one that it does not know is UNKNOWN.
func addrAndPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return "UNKNOWN 65535"
	}
	return fmt.Sprintf("%s %d", a.Addr().Unmap().WithZone(""), a.Port())
}

// runner wraps what runs with the calls of SessionStart and SessionEnd, and ends the channel with its exit.
func (s *session) runner(p plan, run func() exit) func() {
	srv := s.guest.server
	srv.sessions.Add(1)
	s.guest.begins(s)
	return func() {
		info := SessionInfo{
			Identity:   s.guest.identity(),
			Remote:     s.guest.remoteText(),
			Kind:       p.kind,
			PTY:        s.term != nil && p.kind != KindSFTP,
			EndToEnd:   !s.guest.spliced,
			Started:    time.Now(),
			ExitStatus: -1,
		}
		srv.attach(s.guest)
		srv.sessionStarted(s.guest.log, info)
		defer func() {
			info.Ended = time.Now()
			srv.sessionEnded(s.guest.log, info)
		}()
		e := run()
		info.ExitStatus = e.status
		s.finish(e)
	}
}

// finish says how the program ended, then EOF, then CLOSE. No EOF goes out before: a multiplexed OpenSSH client would close the
// channel as soon as both sides have sent one, and then take no exit-status.
func (s *session) finish(e exit) {
	s.replying.Lock()
	defer s.replying.Unlock()
	e.send(s.ch)
	s.ch.CloseWrite()
	s.ch.Close()
}

// fail tells the guest why nothing runs. The system names the program even when it is the directory that it did not find.
func (s *session) fail(c command, err error) exit {
	switch {
	case !isDir(c.dir):
		err = fmt.Errorf("the task's directory %s is not there", c.dir)
	case filepath.Base(c.path) == c.path:
		err = fmt.Errorf("there is no program %s on the PATH", printable.Text(c.path, 64))
	case c.path == s.guest.server.host.shell && errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("this machine has no shell, %s is not there. What works: sftp and scp, its own programs by their path "+
			"(ssh … /path/to/program), and the verbs of stagedoor (ssh … stagedoor help)", c.path)
	}
	fmt.Fprintf(s.ch.Stderr(), "stagedoor: %v\r\n", err)
	return exit{status: 1}
}

// runProcess shows a program to the guest until it has ended or the guest has gone.
func (s *session) runProcess(p *process, notice string) (e exit) {
	released := false
	defer func() {
		if !released { // a panic is on its way up
			p.hangup(s.guest.server.grace())
			p.release()
		}
	}()
	io.WriteString(s.ch.Stderr(), notice)
	s.goSafely(func() { s.copyInput(p) })
	if s.view.terminal {
		s.goSafely(s.showNotices)
	}
	lost := p.attach(s.view, &view{server: s.guest.server, out: s.ch.Stderr()}, s.cut)
	if lost != nil {
		s.hangup(p)
	}
	e = p.release()
	released = true
	s.view.end("")
	if lost != nil {
		return exit{status: -1, signal: "HUP"}
	}
	return e
}

// copyInput passes on what the guest types until it sends EOF or closes the channel. When the program takes no more, the rest
// is read and dropped: it may close its stdin and live on.
func (s *session) copyInput(p *process) {
	defer p.closeInput()
	buf := make([]byte, 32<<10)
	for taken := true; ; {
		n, err := s.ch.Read(buf)
		if n > 0 {
			s.guest.server.touch()
		}
		if n > 0 && taken {
			if _, err := p.Write(buf[:n]); err != nil {
				taken = false
				s.stopInput(p)
			}
		}
		if err != nil {
			return
		}
	}
}

// stopInput tells an OpenSSH client that it need not send more, as sshd does (PROTOCOL, eow@openssh.com). Others are not told,
// as some take an unknown request badly.
func (s *session) stopInput(p *process) {
	p.closeInput()
	if s.term == nil && s.guest.isOpenSSH() {
		s.ch.SendRequest("eow@openssh.com", false, nil)
	}
}

// stopOutput is for a guest that takes no more output (PROTOCOL, eow@openssh.com), as ssh does when its standard output is closed:
// a program that writes on is told by SIGPIPE. Its standard error and its end are still shown.
func (s *session) stopOutput(payload []byte) error {
	if err := parseNothing(payload); err != nil {
		return err
	}
	if s.proc == nil {
		return errors.New("no program runs")
	}
	s.proc.closeOutput()
	return nil
}

// runSFTP serves sftp on the channel.
func (s *session) runSFTP() exit {
	defer s.endOutput()
	done := make(chan error, 1)
	go func() {
		defer recoverTo(s.guest.log, func() { done <- errors.New("sftp server failed") })
		done <- serveSFTP(s, s.guest.server.host.dir)
	}()
	var err error
	select {
	case err = <-done:
	case <-s.cut:
		if s.sayFarewell() {
			return exit{status: -1, signal: "HUP"} // which closes the channel, and so ends the server
		}
		if err = waitFor(done, sftpPatience); errors.Is(err, errPatience) {
			s.guest.log.Warn("sftp server left behind: the file system does not answer")
		}
	}
	if err != nil {
		s.guest.log.Debug("sftp ended", "error", err)
		return exit{status: 1}
	}
	return exit{}
}

var errPatience = errors.New("waited too long")

func waitFor(done <-chan error, patience time.Duration) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return errPatience
	}
}

// Read reads what the guest sends, for sftp.
func (s *session) Read(p []byte) (int, error) {
	n, err := s.ch.Read(p)
	if n > 0 {
		s.guest.server.touch()
	}
	return n, err
}

// Write sends to the guest, for sftp.
func (s *session) Write(p []byte) (int, error) {
	s.guest.server.touch()
	s.output.Lock()
	defer s.output.Unlock()
	if s.outputEnded {
		return 0, io.ErrClosedPipe
	}
	return s.ch.Write(p)
}

// endOutput keeps the sftp library, which may write for a moment after its server has returned, from doing so beside EOF.
func (s *session) endOutput() {
	s.output.Lock()
	defer s.output.Unlock()
	s.outputEnded = true
}
