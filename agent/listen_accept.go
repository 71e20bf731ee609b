package agent

import (
	"errors"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// serve accepts connections until the listening is closed. The guest's wg has counted them.
func (l *listening) serve() {
	l.log.Info("listening for the guest")
	for _, s := range l.sockets {
		go func() {
			defer l.guest.wg.Done()
			defer recoverTo(l.log, func() { s.Close() })
			l.accept(s)
		}()
	}
}

// accept takes connections in, no more at once than the guest may have channels. The rest waits in the kernel: a guest that does
// not answer makes others wait and holds nothing else.
func (l *listening) accept(s net.Listener) {
	for delay := time.Duration(0); ; {
		c, err := s.Accept()
		switch {
		case err == nil:
			delay = 0
			l.take(c.(halfConn))
		case isPassing(err):
			delay = min(max(2*delay, 5*time.Millisecond), maxAcceptDelay)
			l.log.Warn("accept failed, trying again", "error", err, "delay", delay)
			if !l.pause(delay) {
				return
			}
		default:
			if !errors.Is(err, net.ErrClosed) {
				l.log.Warn("accept failed", "error", err)
			}
			return
		}
	}
}

// pause is false when the listening was closed meanwhile.
func (l *listening) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.stopped:
		return false
	}
}

// take serves a connection, once there is room for it.
func (l *listening) take(c halfConn) {
	g := l.guest
	select {
	case g.accepted <- struct{}{}:
	case <-l.stopped:
		c.Close()
		return
	}
	g.wg.Go(func() { // the caller is counted, so end waits still
		defer func() { <-g.accepted }()
		defer c.Close()
		defer recoverTo(l.log, func() {})
		l.forward(c)
	})
}

// forward opens a channel for a connection and serves it until both have ended.
func (l *listening) forward(c halfConn) {
	ch, requests, err := l.guest.openChannel(l.opening(c.RemoteAddr()))
	if err != nil {
		l.log.Debug("connection refused by the guest", "error", err)
		return
	}
	l.log.Debug("forwarding", "from", c.RemoteAddr().String())
	l.guest.relay(ch, requests, c)
}

// opening is that of a forwarding. The address is the one that the guest asked for: OpenSSH
// finds the forwarding by it.
func (k listenKey) opening(origin net.Addr) (channelType string, payload []byte) {
	if k.network == "unix" {
		return "forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{k.address, ""})
	}
	from := addrPortOf(origin)
	return "forwarded-tcpip", ssh.Marshal(struct {
		Address       string
		Port          uint32
		OriginAddress string
		OriginPort    uint32
	}{k.address, k.port, from.Addr().String(), uint32(from.Port())})
}
