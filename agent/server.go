package agent

import (
	"context"
	"log/slog"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// Server is the SSH server of a host. Task and HostKey are required; the zero value of every other field works. Its fields must
// not change once Serve was called.
type Server struct {
	// Task is the task whose host this is. Spliced guests must hold a certificate for it.
	Task auth.TaskID
	// HostKey is shown to guests.
	HostKey ssh.Signer
	// Grant says which public keys sign in end to end. Nil: none.
	Grant *auth.Grant
	// EndToEndOnly refuses guests that a gateway vouches for.
	EndToEndOnly bool

	// Shell is the path of the guests' shell. Empty: the user's login shell, bash or sh.
	Shell string
	// PlainShell starts shells without a command as ordinary ones. Otherwise they are login shells, as under sshd, and the
	// profile they read may replace PATH and other variables of the task.
	PlainShell bool
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

	// SessionStart and SessionEnd, when set, are called as a session's program starts and after it and its channel have ended.
	// Sessions call them concurrently, and wait for them.
	SessionStart func(SessionInfo)
	SessionEnd   func(SessionInfo)
	// Logger may be nil: then nothing is logged.
	Logger *slog.Logger
	// Now is the clock that grants are judged by; nil means time.Now.
	Now func() time.Time
}

// Limits of a Server. Zero values mean the defaults.
type Limits struct {
	Handshake             time.Duration // until a guest has signed in: 30 s
	AuthTries             int           // failed attempts to sign in on one connection: 6
	Connections           int           // open at once: 256
	ChannelsPerConnection int           // open at once: 64
	EnvVariables          int           // that one session may set: 128
	EnvBytes              int           // that they may hold together: 64 KiB
}

// SessionInfo describes a session to the callbacks of a Server.
type SessionInfo struct {
	// Identity is the guest's name, as the gateway or the grant gave it.
	Identity string
	// Remote is the guest's address, host:port.
	Remote string
	// Kind is "shell", "exec" or "sftp".
	Kind string
	// PTY tells whether the session has a terminal.
	PTY bool
	// EndToEnd tells whether the guest signed in here and not at the gateway.
	EndToEnd bool
	Started  time.Time
	// Ended is zero until SessionEnd.
	Ended time.Time
	// ExitStatus is that of the program, -1 when it was killed by a signal, was left by its guest, or never ran.
	ExitStatus int
}

// Serve accepts connections on l and serves each until its guest leaves. Those of a tunnel tell by their header how the guest
// signs in; guests on others sign in end to end. It owns l: it closes l, and returns when l fails, with its error, or after
// Close or Shutdown, with net.ErrClosed. Connections outlive it. Serve may be called for several listeners at once.
func (s *Server) Serve(l net.Listener) error { return net.ErrClosed }

// Shutdown closes the listeners and waits until every connection is closed. When ctx ends first it does what Close does and
// returns ctx.Err().
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Close closes the listeners and all connections, hangs up on their processes and waits until those are gone.
func (s *Server) Close() error { return nil }

// Sessions returns the number of sessions whose program runs.
func (s *Server) Sessions() int { return 0 }

// LastActivity returns when a guest last sent data to a session; zero when none ever did.
func (s *Server) LastActivity() time.Time { return time.Time{} }
