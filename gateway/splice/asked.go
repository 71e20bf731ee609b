package splice

import (
	"sync"

	"golang.org/x/crypto/ssh"
)

// A host opens channels of these types for what a guest has asked it for
// (RFC 4254 sections 6.3.2 and 7.2; PROTOCOL and PROTOCOL.agent of OpenSSH). One
// that nobody asked for is refused: some clients would serve it, and let the host
// use the guest's keys or screen.
var asksFor = map[string]string{
	"tcpip-forward":                   "forwarded-tcpip",
	"streamlocal-forward@openssh.com": "forwarded-streamlocal@openssh.com",
	"x11-req":                         "x11",
	"auth-agent-req@openssh.com":      "auth-agent@openssh.com",
	"agent-req":                       "agent-connect",
}

var cancels = map[string]string{
	"cancel-tcpip-forward":                   "forwarded-tcpip",
	"cancel-streamlocal-forward@openssh.com": "forwarded-streamlocal@openssh.com",
}

var needsAsking = func() map[string]bool {
	types := make(map[string]bool)
	for _, channelType := range asksFor {
		types[channelType] = true
	}
	return types
}()

// asked counts what the guest has asked its host for, by the type of channel
// that follows: requests that are under way or were granted, and not cancelled.
type asked struct {
	mu     sync.Mutex // guards counts
	counts map[string]int
	told   bool // the log has it that the host opens what nobody asked for
}

func (a *asked) add(channelType string, n int) {
	if channelType == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts == nil {
		a.counts = make(map[string]int)
	}
	a.counts[channelType] = max(0, a.counts[channelType]+n)
}

// begin notes a request of the guest that is about to be passed on: the host may
// open a channel as soon as it has it. The result is to be called with the reply.
func (a *asked) begin(r *ssh.Request) (end func(granted bool)) {
	channelType := asksFor[r.Type]
	a.add(channelType, 1)
	return func(granted bool) {
		switch {
		case !granted:
			a.add(channelType, -1)
		case r.WantReply:
			a.add(cancels[r.Type], -1)
		}
	}
}

// mayOpen says whether the host may open a channel. first tells when it did for
// the first time what it must not.
func (a *asked) mayOpen(channelType string) (ok, first bool) {
	if !needsAsking[channelType] {
		return true, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts[channelType] > 0 {
		return true, false
	}
	first = !a.told
	a.told = true
	return false, first
}

// wanted refuses what the host opens although the guest did not ask for it.
func (o *opening) wanted() error {
	j, channelType := o.l.j, o.nc.ChannelType()
	ok, first := j.asked.mayOpen(channelType)
	if ok {
		return nil
	}
	if first {
		j.log.Warn("refused a channel that the host opened and nobody asked for", "type", channelType)
	}
	return &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: "nobody asked for this channel"}
}
