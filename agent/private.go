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
	dir, err := privateDir("ssh-", tempDirs(s.guest.server.host.env, "/ssh-1234567890/agent.1234567890"))
	s.privateDir = dir
	return dir, err
}

// privateDir makes a directory that this user alone may enter in the first of some others where that works.
func privateDir(prefix string, parents []string) (string, error) {
	errs := []error{errors.New("no directory for temporary files")}
	for _, parent := range parents {
		dir, err := os.MkdirTemp(parent, prefix) // with mode 0700
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("private directory: %w", errors.Join(errs...))
}

// tempDirs are where such a directory may be: where the task keeps what is temporary, unless the path of a socket in it, which ends
// in longestName, would become too long, and where sshd makes it.
func tempDirs(task environ, longestName string) (dirs []string) {
	for _, dir := range []string{task.get("TMPDIR"), os.TempDir(), "/tmp"} {
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
