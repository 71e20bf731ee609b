package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// dialTimeout is how long a target may take to answer. The kernel alone would give up after two minutes.
const dialTimeout = 15 * time.Second

// maxUnsentRefusals bounds the channels of a guest that were refused but whose refusal it has not taken off the wire.
const maxUnsentRefusals = 4096

// serveDirectTCPIP connects a guest to an address in the host's network, RFC 4254 §7.2.
func (g *guest) serveDirectTCPIP(nc ssh.NewChannel) {
	address, err := parseDirectTCPIP(nc.ExtraData())
	if err != nil {
		g.refuse(nc, err)
		return
	}
	g.connect(nc, "tcp", address)
}

// serveDirectStreamlocal connects a guest to a socket on the host (OpenSSH PROTOCOL, section 2.4).
func (g *guest) serveDirectStreamlocal(nc ssh.NewChannel) {
	path, err := parseDirectStreamlocal(nc.ExtraData())
	if err == nil {
		path, err = g.socketPath(path)
	}
	if err == nil && g.server.socket.at(path) {
		err = fmt.Errorf("%w: the agent's control socket is not reached by forwarding", auth.ErrDenied)
	}
	if err != nil {
		g.refuse(nc, err)
		return
	}
	g.connect(nc, "unix", path)
}

// connect dials the target of a channel, accepts the channel, and serves it until it has ended.
func (g *guest) connect(nc ssh.NewChannel, network, address string) {
	c, err := dial(g.ctx, network, address)
	if err != nil {
		g.refuse(nc, &dialError{err})
		return
	}
	defer c.Close()
	g.server.attach(g)
	ch, requests, err := nc.Accept()
	if err != nil {
		return // the connection has ended
	}
	g.log.Debug("forwarding", "to", clipped(address))
	g.relay(ch, requests, c)
}

// dial connects to what a guest asked for. Of a name with several addresses it takes the one that answers first (RFC 8305).
func dial(ctx context.Context, network, address string) (halfConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c.(halfConn), nil // both kinds are
}

// refuse answers a channel that is not going to be opened with the reason, in words for the guest.
func (g *guest) refuse(nc ssh.NewChannel, err error) {
	failed, unreachable := errors.AsType[*dialError](err)
	if unreachable {
		g.log.Debug("channel refused", "type", clipped(nc.ChannelType()), "error", err)
	} else {
		g.refused("refused a channel", nc.ChannelType(), err)
	}
	// Each channel has a goroutine, made by the library. Of a guest that opens channels and reads no answers they would pile up.
	if n := g.unsentRefusals.Add(1); n > maxUnsentRefusals {
		if n == maxUnsentRefusals+1 {
			g.log.Warn("connection closed: the guest opens channels and does not read the answers")
		}
		g.nc.Close()
	}
	defer g.unsentRefusals.Add(-1)
	reason, words := ssh.Prohibited, err.Error()
	if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		reason, words = refusal.Reason, refusal.Message
	} else if unreachable {
		reason, words = ssh.ConnectionFailed, failed.words()
	}
	nc.Reject(reason, words)
}

// dialError says why there is no connection to what a guest asked for.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// words are those of sshd, which guests know, and search for.
func (e *dialError) words() string {
	if failed, ok := errors.AsType[*net.DNSError](e.error); ok {
		if failed.IsNotFound {
			return "Name or service not known"
		}
		return "Temporary failure in name resolution"
	}
	if failed, ok := errors.AsType[net.Error](e.error); ok && failed.Timeout() {
		return "Connection timed out"
	}
	if errno, ok := errors.AsType[syscall.Errno](e.error); ok {
		words := errno.Error()
		return strings.ToUpper(words[:1]) + words[1:]
	}
	return "open failed"
}

// parseDirectTCPIP returns the target of a direct-tcpip channel, as net.Dial takes it.
func parseDirectTCPIP(payload []byte) (address string, err error) {
	var open struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(payload, &open); err != nil {
		return "", fmt.Errorf("request cannot be read: %w", err)
	}
	if open.Port > 65535 {
		return "", fmt.Errorf("there is no port %d", open.Port)
	}
	if !isHostText(open.Host) || open.Host == "" { // Go takes an empty name for the host itself, the resolver does not
		return "", &dialError{&net.DNSError{Err: "not a host name", Name: clipped(open.Host), IsNotFound: true}}
	}
	return net.JoinHostPort(open.Host, strconv.FormatUint(uint64(open.Port), 10)), nil
}

// parseDirectStreamlocal returns the path that a direct-streamlocal@openssh.com channel leads to. What follows is reserved;
// OpenSSH sends an origin there.
func parseDirectStreamlocal(payload []byte) (path string, err error) {
	var open struct {
		Path     string
		Reserved string
		Number   uint32
	}
	if err := ssh.Unmarshal(payload, &open); err != nil {
		return "", fmt.Errorf("request cannot be read: %w", err)
	}
	return open.Path, nil
}

// isHostText tells whether s can be a host name or an address at all.
func isHostText(s string) bool {
	const longest = 1025 // NI_MAXHOST
	return len(s) < longest && !strings.ContainsRune(s, 0)
}

// socketPath checks the path of a socket. A relative one is relative to the task's directory. It must not go through
// filepath.Join: that would take a ".." behind a symbolic link for what it is not.
func (g *guest) socketPath(path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", errors.New("not the path of a socket")
	}
	if !filepath.IsAbs(path) {
		path = g.server.host.dir + string(os.PathSeparator) + path // "@name" would be an abstract socket otherwise
	}
	if longest := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > longest {
		return "", fmt.Errorf("the path of the socket has more than %d bytes", longest)
	}
	return path, nil
}
