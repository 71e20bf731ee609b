package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
)

// Server is the SSH server of a host. Task and HostKey are required; the zero value of every other field works. Its fields must
// not change once Serve was called.
type Server struct {
	// Task is the task whose host this is. Spliced guests must hold a certificate for it.
	Task auth.TaskID
	// HostKey is shown to guests: Ed25519 or ECDSA.
	HostKey ssh.Signer
	// HostCertificate, when set, is shown to end-to-end guests beside the key, so that who trusts its CA need not know the key.
	// It must be a host certificate for the key, with the task, alone or as the first label of a name, among its principals.
	// Serve fails when it is not, or not in force. It is made by what made the task: a CA's key inside a job could impersonate
	// every host.
	HostCertificate *ssh.Certificate
	// ExtraAlgorithms are names of transport algorithms that guests are offered beside [auth.Algorithms], as a client in FIPS mode
	// needs them. Serve fails when one does not pass [auth.CheckAlgorithm].
	ExtraAlgorithms []string
	// Grant says which public keys sign in end to end. Nil: none.
	Grant *auth.Grant
	// Forges look up the keys of accounts that the grant names, for guests who sign in end to end. Whoever sets it keeps them
	// current, with its Watch, and closes it. Nil: accounts let nobody in.
	Forges *forge.Resolver
	// EndToEndOnly refuses guests that a gateway vouches for.
	EndToEndOnly bool

	// Shell is the path of the guests' shell. Empty: the user's login shell, bash or sh.
	Shell string
	// LoginShell makes shells without a command login shells, as under sshd. Otherwise they are ordinary interactive ones: the
	// profile that a login shell reads replaces PATH on many systems, and with it what the task has set up.
	LoginShell bool
	// Env is the environment of the task, in the form of os.Environ. Nil: that of this process. Variables whose name starts
	// with STAGEDOOR are never passed on.
	Env []string
	// Dir is where sessions start. Empty: the working directory of this process.
	Dir string
	// AcceptEnv lists further names of variables that guests may set, with * and ? as wildcards. LANG, LC_*, TERM and
	// COLORTERM are always accepted, those that make a loader or shell run something never.
	AcceptEnv []string
	// HangupGrace is how long processes may live after SIGHUP told them that their guest has gone; then they are killed.
	// Zero: 5 s.
	HangupGrace time.Duration
	// Limits bound what guests can make the host hold.
	Limits Limits

	// SessionStart and SessionEnd, when set, are called as a session's program starts and after it has ended. Sessions call
	// them concurrently, and wait for them; they must call neither Close nor Shutdown.
	SessionStart func(SessionInfo)
	SessionEnd   func(SessionInfo)
	// Logger may be nil: then nothing is logged.
	Logger *slog.Logger
	// Now is the clock that grants are judged by; nil means time.Now.
	Now func() time.Time

	agent  *Agent         // whose server it is; nil: there are no verbs
	socket *controlSocket // of the agent; nil: none

	taskLater bool // Task is set before the first Serve, but after setup

	prepare sync.Once
	host    *host // set by prepare
	hostErr error

	sessions atomic.Int64
	presence // of guests
	places   places

	mu        sync.Mutex // guards the fields below
	closed    bool
	listeners map[*net.Listener]bool
	guests    map[*guest]bool
	wg        sync.WaitGroup // one per guest; Add only under mu while not closed
}

// SessionInfo describes a session to the callbacks of a Server.
type SessionInfo struct {
	Identity   string    // the guest's name, as the gateway or the grant gave it
	Remote     string    // the guest's address, host:port; empty when unknown
	Kind       string    // KindShell, KindExec or KindSFTP
	PTY        bool      // it has a terminal
	EndToEnd   bool      // the guest signed in here and not at the gateway
	Started    time.Time // when its program did
	Ended      time.Time // zero until SessionEnd
	ExitStatus int       // of the program; -1 when a signal ended it, its guest left it, or it still runs
}

// host is what is looked up once: where and as whom programs run.
type host struct {
	shell, dir, home, user string
	env                    []string
	keys                   []ssh.Signer // shown to end-to-end guests
}

// maxAcceptDelay is the longest pause after a failure to accept that may pass, such as a lack of descriptors.
const maxAcceptDelay = time.Second

// Serve accepts connections on l and serves each until its guest leaves. Those of a tunnel tell by their header how the guest
// signs in; guests on others sign in end to end. It owns l: it closes l, and returns when l fails, with its error, or after
// Close or Shutdown, with net.ErrClosed. Connections outlive it. Serve may be called for several listeners at once.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if err := s.setup(); err != nil {
		return err
	}
	if !s.addListener(&l) {
		return net.ErrClosed
	}
	defer s.removeListener(&l)
	clock := gatewayClock(l)
	for delay := time.Duration(0); ; {
		nc, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
			s.begin(nc, clock)
		case isPassing(err):
			delay = min(max(2*delay, 5*time.Millisecond), maxAcceptDelay)
			s.logger().Warn("accept failed, trying again", "error", err, "delay", delay)
			time.Sleep(delay)
		case s.isClosed():
			return net.ErrClosed
		default:
			return err
		}
	}
}

// isPassing tells whether a failure to accept will pass.
func isPassing(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// setup checks the configuration and looks up, once, what does not change.
func (s *Server) setup() error {
	s.prepare.Do(func() { s.host, s.hostErr = s.lookUp() })
	return s.hostErr
}

func (s *Server) lookUp() (*host, error) {
	switch {
	case s.Task == "" && !s.taskLater:
		return nil, errors.New("agent: the server has no task")
	case s.taskLater && s.HostCertificate != nil:
		return nil, errors.New("agent: a host certificate is for a task whose name is known: it needs a host token that names it")
	}
	for _, name := range s.ExtraAlgorithms {
		if err := auth.CheckAlgorithm(name); err != nil {
			return nil, fmt.Errorf("agent: extra algorithms: %w", err)
		}
	}
	if err := s.checkHostKey(s.now()); err != nil {
		return nil, err
	}
	if err := s.checkGrant(); err != nil {
		return nil, err
	}
	keys, err := s.hostKeys()
	if err != nil {
		return nil, err
	}
	h := &host{shell: s.Shell, dir: s.Dir, env: s.Env, keys: keys}
	h.user, h.home = account()
	if h.shell == "" {
		h.shell = loginShell()
	}
	if h.env == nil {
		h.env = os.Environ()
	}
	if h.dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("agent: working directory: %w", err)
		}
		h.dir = dir
	}
	return h, nil
}

// checkGrant refuses to serve with a grant that cannot be read, and end to end only with one that lets nobody in.
func (s *Server) checkGrant() error {
	if s.Grant == nil {
		if s.EndToEndOnly {
			return errors.New("agent: end to end only, but no grant says who may enter: put keys into the host token")
		}
		return nil
	}
	if err := s.Grant.Check(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if s.EndToEndOnly && !s.namesKeys() {
		return errors.New("agent: end to end only, but the grant names no key: put keys into the host token")
	}
	return nil
}

// begin serves a connection on a goroutine of its own.
func (s *Server) begin(nc net.Conn, clock func() time.Time) {
	g := s.newGuest(nc, clock)
	if err := s.addGuest(g); err != nil {
		g.log.Warn("connection refused", "error", err)
		nc.Close()
		return
	}
	go func() {
		defer s.removeGuest(g)
		g.serve()
	}()
}

func (s *Server) addGuest(g *guest) error {
	limit := s.Limits.withDefaults().Connections
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case len(s.guests) >= limit:
		return fmt.Errorf("%d connections are open", limit)
	}
	if s.guests == nil {
		s.guests = make(map[*guest]bool)
	}
	s.guests[g] = true
	s.wg.Add(1)
	return nil
}

func (s *Server) removeGuest(g *guest) {
	s.mu.Lock()
	delete(s.guests, g)
	s.mu.Unlock()
	s.leave(g)
	s.wg.Done()
}

func (s *Server) addListener(l *net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.listeners == nil {
		s.listeners = make(map[*net.Listener]bool)
	}
	s.listeners[l] = true
	return true
}

func (s *Server) removeListener(l *net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Shutdown closes the listeners and waits until every guest has left. When ctx ends first it does what Close does and returns
// ctx.Err().
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeListeners()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.closeGuests()
		<-done
		return ctx.Err()
	}
}

// Close closes the listeners and all connections, hangs up on their processes and waits until those are gone.
func (s *Server) Close() error {
	s.closeListeners()
	s.closeGuests()
	s.wg.Wait()
	return nil
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		(*l).Close()
	}
}

func (s *Server) closeGuests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.guests {
		g.nc.Close()
	}
}

// Sessions returns the number of sessions whose program runs.
func (s *Server) Sessions() int { return int(s.sessions.Load()) }

// LastActivity returns when a guest last started something, sent input, was shown output, had bytes forwarded or left; zero when
// none ever did.
func (s *Server) LastActivity() time.Time { return s.last() }

func (s *Server) sessionStarted(log *slog.Logger, info SessionInfo) {
	log.Info("session started", "kind", info.Kind, "pty", info.PTY)
	callBack(log, s.SessionStart, info)
}

func (s *Server) sessionEnded(log *slog.Logger, info SessionInfo) {
	s.sessions.Add(-1)
	log.Info("session ended", "kind", info.Kind, "pty", info.PTY, "status", info.ExitStatus, "duration", info.Ended.Sub(info.Started))
	callBack(log, s.SessionEnd, info)
}

// callBack calls a function of the embedder's. A panic in it must not keep a session from ending in order.
func callBack(log *slog.Logger, f func(SessionInfo), info SessionInfo) {
	defer recoverTo(log, func() {})
	if f != nil {
		f(info)
	}
}

func (s *Server) grace() time.Duration {
	if s.HangupGrace > 0 {
		return s.HangupGrace
	}
	return 5 * time.Second
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Server) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger.With("task", string(s.Task))
}
