package gateway

import (
	"context"
	"fmt"
	"log/slog"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/splice"
)

// hooks enforce on every channel, channel request and global request of a
// guest's connection what the guest's permissions and the limits say, and count.
func (s *Server) hooks(g *guest) *splice.Hooks {
	return &splice.Hooks{
		Budget: s.budget,
		Owner:  g.owner(),
		Divert: func(typ string, extra []byte) (splice.ServeFunc, error) { return s.divert(g, typ, extra) },
		Unreachable: func(ctx context.Context, nc ssh.NewChannel, err error) {
			s.explain(ctx, g, nc, err.Error())
		},
		Channel: func(from splice.Side, typ string, extra []byte) (*splice.ChannelHooks, error) {
			return s.openChannel(g, from, typ, extra)
		},
		Global: func(from splice.Side, r *ssh.Request) (bool, error) {
			return g.askGlobal(from, r)
		},
		Answered: g.activity.answered,
		Panic:    func(v any, stack []byte) { s.panicked("channel", v, stack) },
		Log:      g.log,
	}
}

// askGlobal judges a global request, and answers what is about the gateway.
func (g *guest) askGlobal(from splice.Side, r *ssh.Request) (handled bool, err error) {
	err = auth.AllowGlobal(g.perms(), side(from), r.Type, r.Payload)
	if err == nil && r.Type == proveHostKeys {
		err = g.prove(r)
		handled = err == nil
	}
	if err != nil {
		g.refused("refused a global request", r.Type, from, err)
	}
	return handled, err
}

// maxRefusalsLogged bounds what either side of one connection can write into the
// log by asking for what it may not have. Further ones are at level debug.
const maxRefusalsLogged = 10

func (g *guest) refused(what, typ string, from splice.Side, err error) {
	g.note(what, "type", fmt.Sprintf("%.64s", typ), "from", from.String(), "error", err)
	g.activity.denied(what, typ, from, err)
}

// note logs what the guest may bring about as often as it likes.
func (g *guest) note(what string, args ...any) {
	level := slog.LevelInfo
	if g.refusals.Add(1) > maxRefusalsLogged {
		level = slog.LevelDebug
	}
	g.log.Log(context.Background(), level, what, args...)
}

// owner is what limits of an identity count by: the key, because a name is
// whatever the one who granted it wrote behind it.
func (g *guest) owner() string {
	if g.identity.Key == nil {
		return g.identity.Method + " " + g.identity.Name
	}
	return string(plainKey(g.identity.Key).Marshal())
}

func side(from splice.Side) auth.Side {
	if from == splice.Guest {
		return auth.Guest
	}
	return auth.Host
}

// openChannel says whether a channel may be opened, and watches it if so.
func (s *Server) openChannel(g *guest, from splice.Side, typ string, extra []byte) (*splice.ChannelHooks, error) {
	if err := auth.AllowChannel(g.perms(), side(from), typ, extra); err != nil {
		g.refused("refused a channel", typ, from, err)
		return nil, err
	}
	if err := s.takeChannel(g); err != nil {
		g.refused("refused a channel", typ, from, err)
		return nil, err
	}
	leave := func() {}
	if typ == session {
		give, err := s.takeSession(g)
		if err != nil {
			s.giveChannel(g)
			g.refused("refused a channel", typ, from, err)
			return nil, err
		}
		leave = give
	}
	s.metrics.channels.WithLabelValues(typ, from.String()).Inc()
	g.log.Debug("channel opened", "type", typ, "from", from.String())
	doing := g.activity.channel(typ, from, extra)
	fromGuest, fromHost := s.metrics.bytes.WithLabelValues("guest"), s.metrics.bytes.WithLabelValues("host")
	return &splice.ChannelHooks{
		Opened: func(say func(string) <-chan struct{}) { doing.say.Store(&say) },
		Lost:   func() string { return fmt.Sprintf("\r\nstagedoor: %s\r\n", hostLost(g.task)) },
		Request: func(from splice.Side, requestType string, payload []byte) error {
			err := auth.AllowRequest(g.perms(), side(from), typ, requestType, payload)
			if err != nil {
				g.refused("refused a request", requestType, from, err)
				return err
			}
			doing.request(from, requestType, payload)
			return nil
		},
		Data: func(from splice.Side, _ bool, p []byte) {
			doing.data(from, len(p))
			if from == splice.Guest {
				fromGuest.Add(float64(len(p)))
			} else {
				fromHost.Add(float64(len(p)))
			}
		},
		Closed: func() {
			doing.closed()
			s.giveChannel(g)
			leave()
		},
	}, nil
}

// takeChannel counts a channel against the limits of the connection, of the
// identity and of the gateway's memory.
func (s *Server) takeChannel(g *guest) error {
	l := g.settings.Limits
	s.mu.Lock()
	defer s.mu.Unlock()
	shortage := func(words string) error {
		return &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: words}
	}
	switch {
	case g.channels >= l.ChannelsPerConnection:
		return shortage("this connection has as many channels open as it may")
	case s.identities[g.owner()] >= l.ChannelsPerIdentity:
		return shortage("you have as many channels open as you may, over all your connections")
	case s.budget.Full(g.owner()):
		return shortage("this gateway's memory for stalled channels is used up: try again later")
	}
	g.channels++
	s.identities[g.owner()]++
	return nil
}

func (s *Server) giveChannel(g *guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.channels--
	decrement(s.identities, g.owner())
}
