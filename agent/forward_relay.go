package agent

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	lastBytes = 2 * time.Second // how long a connection may take to accept what its guest sent before it went
	linger    = 5 * time.Second // how long one may go on sending to a guest that has closed the channel
)

// halfConn is a connection whose two directions end one by one: *net.TCPConn and *net.UnixConn.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// relay passes bytes between a channel and a connection, with half-closes: the end of one direction leaves the other alone. It
// closes both when both directions have ended, and returns when the guest has closed the channel too.
func (g *guest) relay(ch ssh.Channel, requests <-chan *ssh.Request, c halfConn) {
	defer c.Close()
	stop := context.AfterFunc(g.ctx, func() { c.SetWriteDeadline(time.Now().Add(lastBytes)) })
	defer stop()
	closed := make(chan struct{}) // by the guest
	delivered := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, ch.Stderr()) }) // unread it would eat up the window that it shares with the data
	wg.Go(func() { ssh.DiscardRequests(requests); close(closed) })
	wg.Go(func() { g.relayFromGuest(ch, c, delivered) })
	silent := make(chan struct{}) // the connection sends no more
	wg.Go(func() {
		<-closed
		<-delivered
		g.linger(silent)
		c.Close()
	})
	g.relayToGuest(ch, c)
	close(silent)
	<-delivered
	c.Close()
	ch.Close()
	wg.Wait()
}

// linger waits before a connection is closed that may still be sending: closing it with something unread would reset it, and the
// peer would lose what was delivered but not yet read.
func (g *guest) linger(silent <-chan struct{}) {
	select {
	case <-silent:
	case <-time.After(linger):
	case <-g.ctx.Done():
	}
}

// relayFromGuest closes delivered when c has all that it takes of what the guest sends.
func (g *guest) relayFromGuest(ch ssh.Channel, c halfConn, delivered chan<- struct{}) {
	if _, err := io.Copy(c, touching{ch, g.server}); err == nil {
		c.CloseWrite()
	}
	close(delivered)
	io.Copy(io.Discard, ch) // the peer may have ended one direction alone
}

// relayToGuest returns when c sends no more.
func (g *guest) relayToGuest(ch ssh.Channel, c halfConn) {
	w := &writing{Writer: ch}
	_, err := io.Copy(w, touching{c, g.server})
	switch {
	case w.failed: // the guest has closed the channel. A peer that cannot send might not read either.
		io.Copy(io.Discard, c)
	case err == nil:
		ch.CloseWrite()
	default: // the connection was reset: neither direction is of use
		c.Close()
		ch.Close()
	}
}

// touching reads what counts as activity of a guest.
type touching struct {
	io.Reader
	server *Server
}

func (t touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 {
		t.server.touch()
	}
	return n, err
}

// writing remembers that it was the writing that failed.
type writing struct {
	io.Writer
	failed bool
}

func (w *writing) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.failed = err != nil
	return n, err
}
