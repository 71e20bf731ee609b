package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// explainTime bounds how long a guest may take to collect the reason why there
// is nothing behind the door.
const explainTime = 10 * time.Second

// hostLost is what a guest reads whose host was there a moment ago.
func hostLost(task auth.TaskID) string {
	return fmt.Sprintf("the host of task %s is lost: its job was killed, or its connection broke", task)
}

// explain tells a signed-in guest why it cannot be taken to the host: a session
// gets the reason on stderr and exit status 255, which is what ssh uses for its
// own failures; other channels get it as their refusal.
func (s *Server) explain(ctx context.Context, g *guest, nc ssh.NewChannel, reason string) {
	if nc.ChannelType() != "session" {
		nc.Reject(ssh.ConnectionFailed, reason)
		return
	}
	if err := s.takeChannel(g); err != nil {
		reject(nc, err)
		return
	}
	defer s.giveChannel(g)
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ch.Close() })()
	explainSession(ch, reqs, reason)
}

// explainSession waits for the request that starts a program, so that the
// client is ready to show output, then says why there is none. It returns when
// the client has closed the channel.
func explainSession(ch ssh.Channel, reqs <-chan *ssh.Request, reason string) {
	for r := range reqs {
		switch r.Type {
		case "shell", "exec", "subsystem":
			r.Reply(true, nil)
			ch.Stderr().Write([]byte("stagedoor: " + strings.ReplaceAll(reason, "\n", "\r\n") + "\r\n"))
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{255}))
			ch.Close()
		default:
			r.Reply(r.Type == "pty-req" || r.Type == "env", nil)
		}
	}
}

// noTask tells a guest whose user name is no task what it may do.
func (g *guest) noTask() error {
	return fmt.Errorf("you are signed in as %.64q, but no task of this name is open to your key:\n"+
		"its job may not have started yet, or has ended. To enter a task:  %s\n"+
		"or end to end, through this gateway:  ssh -J %s TASK\n(%s)", g.user, g.settings.sshTo("TASK"), g.settings.jumpHost(), g.otherKey())
}

// reject refuses a channel with the reason and the words of err.
func reject(nc ssh.NewChannel, err error) {
	refusal := &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: err.Error()}
	errors.As(err, &refusal)
	nc.Reject(refusal.Reason, refusal.Message)
}

// refuseChannels keeps the queue of a connection that ends from filling up.
func refuseChannels(channels <-chan ssh.NewChannel) {
	for nc := range channels {
		nc.Reject(ssh.ConnectionFailed, "the connection is closing")
	}
}
