package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/splice"
	"github.com/stagedoor/stagedoor/tunnel"
)

// certificateTTL is how long the certificate of a spliced guest is good for. The
// agent looks at it once, when the stream begins.
const certificateTTL = 5 * time.Minute

// dialHost opens the SSH connection that a guest's is joined to. Its errors are
// made for the guest.
func (s *Server) dialHost(ctx context.Context, g *guest) (splice.Conn, error) {
	if g.task == "" {
		return splice.Conn{}, g.noTask()
	}
	start := time.Now()
	c, err := s.connectHost(ctx, g)
	if err != nil {
		g.stay.failed()
		g.note("no way to the host", "error", err)
		return splice.Conn{}, err
	}
	s.metrics.dial.Observe(time.Since(start).Seconds())
	return c, nil
}

func (s *Server) connectHost(ctx context.Context, g *guest) (splice.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Limits.HostTimeout)
	defer cancel()
	stream, reg, err := s.dialTask(ctx, g.task, func(reg registration) (tunnel.StreamHeader, error) {
		if reg.endToEndOnly {
			return tunnel.StreamHeader{}, g.endToEndOnly(s.grantNaming(g.task, g.identity.Key) != nil)
		}
		if err := g.reauthorize(ctx, reg); err != nil {
			return tunnel.StreamHeader{}, err
		}
		if err := s.beginStay(ctx, g, reg); err != nil {
			return tunnel.StreamHeader{}, err
		}
		return g.header(reg)
	})
	if err != nil {
		return splice.Conn{}, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	meter := splice.NewMeter(stream)
	c, chans, reqs, err := ssh.NewClientConn(meter, string(g.task), hostClientConfig(g.task, reg.hostKey, g.hostVersion()))
	if err == nil && !stop() {
		err = ctx.Err()
		go ssh.DiscardRequests(reqs)
		go refuseChannels(chans)
	}
	if err != nil {
		stream.Close()
		return splice.Conn{}, fmt.Errorf("the host of task %s did not let the gateway in: %w", g.task, err)
	}
	return splice.Conn{Conn: c, Channels: chans, Requests: reqs, Closer: stream, Meter: meter}, nil
}

// endToEndOnly says how to reach a host that takes no guests who signed in here.
// The host knows no keys but those of its grant.
func (g *guest) endToEndOnly(granted bool) error {
	words := fmt.Sprintf("task %[1]s takes end-to-end connections only: ssh -J %[1]s@%[2]s %[1]s\n"+
		"The job's log has this command with the host's key in it.", g.task, g.settings.jumpHost())
	if !granted {
		words += "\nEnd to end only keys in the job's token count, and yours is not among them: ask whoever runs the job."
	}
	return errors.New(words)
}

// reauthorize judges the guest again when another host has registered since it
// signed in: one with a grant of its own, that need not name the guest.
func (g *guest) reauthorize(ctx context.Context, reg registration) error {
	if reg.grant == g.entry.Load().grant {
		return nil
	}
	perms, err := g.settings.Guests.Authorize(ctx, g.identity, auth.Task{ID: g.task, Grant: reg.grant})
	if err != nil || perms == nil {
		g.note("the host that came back does not let the guest in", "error", err)
		return fmt.Errorf("another host has taken over task %s, and does not let you in", g.task)
	}
	g.entry.Store(&entry{grant: reg.grant, perms: perms})
	return nil
}

// header says to the agent who comes: by a certificate of the CA that was named
// when that agent registered, whatever was reloaded since.
func (g *guest) header(reg registration) (tunnel.StreamHeader, error) {
	cert, err := auth.IssueGuestCertificate(reg.ca, g.identity, g.task, g.perms(), time.Now(), certificateTTL)
	if err != nil {
		g.log.Error("cannot vouch for a guest", "error", err)
		return tunnel.StreamHeader{}, fmt.Errorf("this gateway could not vouch for you (conn %s): tell its operator", g.id)
	}
	return tunnel.StreamHeader{Mode: tunnel.ModeSpliced, Remote: remoteOf(g.raw), Certificate: cert.Marshal()}, nil
}

// openSSHLike is how the versions begin by which OpenSSH and the agent know each
// other. OpenSSH keeps eow@openssh.com and no-more-sessions@openssh.com to such
// servers (compat.c), so that "ssh task yes | head -1" would never end without.
const openSSHLike = "SSH-2.0-OpenSSH_"

// hostVersion is what the gateway calls itself to the agent of a guest: what
// only OpenSSH understands must not be sent to the guests who use another client.
func (g *guest) hostVersion() string {
	if strings.HasPrefix(string(g.conn.ClientVersion()), openSSHLike) {
		return openSSHLike + "guest_Stagedoor"
	}
	return "SSH-2.0-Stagedoor"
}

// hostClientConfig is how the gateway signs in to an agent: the method "none",
// because the certificate in the stream's header says who comes, and the host
// key that was registered through the tunnel. AES-GCM comes first as it is the
// fastest; secrecy in the tunnel is TLS's work already.
func hostClientConfig(task auth.TaskID, hostKey ssh.PublicKey, version string) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherAES128GCM},
		},
		User:              string(task),
		HostKeyCallback:   ssh.FixedHostKey(hostKey),
		HostKeyAlgorithms: []string{hostKey.Type()},
		ClientVersion:     version,
	}
}

// dialTask opens a stream to a task's host, waiting until ctx ends for one that
// is dialling again. It is the one place that knows where hosts are. Its errors
// are made for the guest.
func (s *Server) dialTask(ctx context.Context, task auth.TaskID, header func(registration) (tunnel.StreamHeader, error)) (net.Conn, registration, error) {
	for {
		t, reg, err := s.awaitTunnel(ctx, task)
		if err != nil {
			return nil, reg, err
		}
		h, err := header(reg)
		if err != nil {
			return nil, reg, err
		}
		c, err := t.Dial(ctx, h)
		switch {
		case errors.Is(err, tunnel.ErrClosed):
			s.lost(string(task), t)
		case errors.Is(err, tunnel.ErrTooManyStreams):
			return nil, reg, fmt.Errorf("task %s serves as many connections as it may: close one of yours and try again", task)
		case err != nil:
			return nil, reg, fmt.Errorf("the host of task %s cannot be reached: %w", task, err)
		default:
			return c, reg, nil
		}
	}
}

// noHostError says that a task is not registered.
type noHostError struct{ task auth.TaskID }

func (e noHostError) Error() string {
	return fmt.Sprintf("task %s has no host now: its job has ended, or has not started stagedoor-agent yet", e.task)
}

// awaitTunnel returns the tunnel to a task's host, waiting until ctx ends for
// one that was lost to come back.
func (s *Server) awaitTunnel(ctx context.Context, task auth.TaskID) (*tunnel.Tunnel, registration, error) {
	for {
		t, reg, arrived := s.tunnelOf(string(task))
		switch {
		case t != nil:
			return t, reg, nil
		case arrived == nil: // never there, or forgotten while we waited
			return nil, reg, noHostError{task}
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, reg, fmt.Errorf("the host of task %s has lost its connection and did not come back in time: try again in a moment", task)
		}
	}
}
