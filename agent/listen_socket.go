package agent

import (
	"fmt"
	"io/fs"
	"net"
	"os"
)

// socketMode is what sshd's default StreamLocalBindMask leaves of a socket's permissions: only its user may connect.
const socketMode fs.FileMode = 0o600

// listenSocket begins to listen for a streamlocal-forward@openssh.com. It replaces nothing, as under sshd with
// StreamLocalBindUnlink no.
func (g *guest) listenSocket(payload []byte) (l *listening, reply []byte, err error) {
	key, err := parseStreamlocalForward(payload)
	if err != nil {
		return nil, nil, err
	}
	path, err := g.socketPath(key.address)
	if err != nil {
		return nil, nil, err
	}
	if err := g.mayListen(key); err != nil {
		return nil, nil, err
	}
	s, made, err := listenPrivately(g, path)
	if err != nil {
		return nil, nil, err
	}
	l = g.newListening(key, []net.Listener{s})
	l.cleanUp = func() { removeSame(path, made) }
	return l, nil, g.addListening(l)
}

// listenPrivately makes a socket for this user alone. made is what it looks like, for removeSame.
func listenPrivately(g *guest, path string) (s *net.UnixListener, made fs.FileInfo, err error) {
	config := net.ListenConfig{Control: privately}
	nl, err := config.Listen(g.ctx, "unix", path)
	if err != nil {
		return nil, nil, err
	}
	s = nl.(*net.UnixListener)
	s.SetUnlinkOnClose(false) // whatever may be there by then
	made, err = os.Lstat(path)
	if err == nil && made.Mode().Perm() != socketMode {
		err = os.Chmod(path, socketMode) // nobody is served before that
	}
	if err != nil {
		s.Close()
		removeSame(path, made)
		return nil, nil, fmt.Errorf("make socket private: %w", err)
	}
	return s, made, nil
}

// removeSame removes a file if it is still the one that was made.
func removeSame(path string, made fs.FileInfo) {
	if there, err := os.Lstat(path); err == nil && made != nil && os.SameFile(there, made) {
		os.Remove(path)
	}
}
