package agent

import (
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// hangs is when a channel that was not answered counts as lost in x/crypto, after the connection has ended.
const hangs = 10 * time.Second

// answer is what became of a channel that was to be opened.
type answer struct {
	ch       ssh.Channel
	requests <-chan *ssh.Request
	err      error
}

// openChannel opens a channel to the guest, if the guest may have it. It waits for the guest's answer, which may never come, and
// returns at the latest when the connection has ended.
func (g *guest) openChannel(channelType string, extra []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	if err := auth.AllowChannel(g.permissions(), auth.Host, channelType, extra); err != nil {
		return nil, nil, err
	}
	answered := make(chan answer, 1)
	go awaitAnswer(g.conn, channelType, extra, answered)
	select {
	case a := <-answered:
		return a.ch, a.requests, a.err
	case <-g.ctx.Done(): // a channel that was opened at the last moment has ended too
		time.AfterFunc(hangs, func() {
			if len(answered) == 0 {
				g.log.Warn("a channel hangs that was opened while the connection ended")
			}
		})
		return nil, nil, net.ErrClosed
	}
}

// awaitAnswer is to be waited for until the connection has ended, and no longer: x/crypto v0.58.0 tells the channels that it knows
// when it has read the end of a connection, but for some microseconds lets more be opened, and does not report the first failure
// to write. Such a channel is never answered, and nothing can wake who opened it.
func awaitAnswer(conn ssh.Conn, channelType string, extra []byte, answered chan<- answer) {
	ch, requests, err := conn.OpenChannel(channelType, extra)
	answered <- answer{ch, requests, err}
}
