package gateway

import (
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/gateway/splice"
)

// explainTime bounds how long a guest may take to collect the reason why there
// is nothing behind the door.
const explainTime = 10 * time.Second

// explain tells a signed-in guest why it cannot be taken to the host: sessions
// get the reason on stderr and exit status 255, which is what ssh uses for
// its own failures; other channels get it as their refusal. It ends when the
// first session was told or the guest left, and closes the connection.
func explain(in splice.Conn, reason string) {
	timeout := time.AfterFunc(explainTime, func() { in.Closer.Close() })
	defer timeout.Stop()
	defer in.Closer.Close()
	go ssh.DiscardRequests(in.Requests)
	for nc := range in.Channels {
		if nc.ChannelType() != "session" {
			nc.Reject(ssh.ConnectionFailed, reason)
			continue
		}
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		explainSession(ch, reqs, reason)
		break
	}
	go refuseChannels(in.Channels)
}

// explainSession waits for the request that starts a program, so that the
// client is ready to show output, then says why there is none.
func explainSession(ch ssh.Channel, reqs <-chan *ssh.Request, reason string) {
	for r := range reqs {
		switch r.Type {
		case "shell", "exec", "subsystem":
			r.Reply(true, nil)
			ch.Stderr().Write([]byte("stagedoor: " + reason + "\r\n"))
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{255}))
			ch.Close()
		default:
			r.Reply(r.Type == "pty-req" || r.Type == "env", nil)
		}
	}
}

// refuseChannels keeps the queue of a connection that ends from filling up.
func refuseChannels(channels <-chan ssh.NewChannel) {
	for nc := range channels {
		nc.Reject(ssh.ConnectionFailed, "the connection is closing")
	}
}
