package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// private returns a directory that this user alone may enter, for what is the session's own. It is made when it is first asked
// for, and removed with the session.
func (s *session) private() (string, error) {
	if s.privateDir != "" {
		return s.privateDir, nil
	}
	var errs []error
	for _, parent := range s.tempDirs() {
		dir, err := os.MkdirTemp(parent, "ssh-") // with mode 0700
		if err == nil {
			s.privateDir = dir
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("private directory: %w", errors.Join(errs...))
}

// tempDirs are where that directory may be: where the task keeps what is temporary, unless the path of a socket would become too
// long, and where sshd makes it.
func (s *session) tempDirs() (dirs []string) {
	env := environ(s.guest.server.host.env)
	for _, dir := range []string{env.get("TMPDIR"), os.TempDir(), "/tmp"} {
		const longestName = "/ssh-1234567890/agent.1234567890"
		if filepath.IsAbs(dir) && len(dir+longestName) < len(syscall.RawSockaddrUnix{}.Path) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// removePrivate removes the directory with all that is in it.
func (s *session) removePrivate() {
	if s.privateDir == "" {
		return
	}
	if err := os.RemoveAll(s.privateDir); err != nil {
		s.guest.log.Warn("private directory of a session not removed", "error", err)
	}
}

// serveOwn accepts connections for the session from now on, each of which becomes a channel to the guest.
func (s *session) serveOwn(l *listening) {
	s.guest.wg.Add(len(l.sockets)) // the session is counted itself, so end waits still
	l.serve()
}

// boundListener accepts connections that are closed, at the latest, when ctx ends.
type boundListener struct {
	*net.UnixListener
	ctx context.Context
}

func (l boundListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &boundConn{c, context.AfterFunc(l.ctx, func() { c.Close() })}, nil
}

type boundConn struct {
	*net.UnixConn
	unbind func() bool
}

func (c *boundConn) Close() error {
	c.unbind()
	return c.UnixConn.Close()
}

// onlyOne makes listeners of which the first connection closes all.
func onlyOne(sockets []net.Listener) []net.Listener {
	once := new(sync.Once)
	only := make([]net.Listener, len(sockets))
	for i, s := range sockets {
		only[i] = onlyListener{s, once, sockets}
	}
	return only
}

type onlyListener struct {
	net.Listener
	once *sync.Once
	all  []net.Listener
}

func (l onlyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	first := false
	l.once.Do(func() {
		first = true
		closeAll(l.all)
	})
	if !first {
		c.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}
