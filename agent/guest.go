package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gliderlabs "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// guest is one connection.
type guest struct {
	server  *Server
	nc      net.Conn
	spliced bool // the gateway has signed the guest in
	header  tunnel.StreamHeader
	welcome tunnel.Welcome
	clock   func() time.Time // of the gateway; nil: the server's own
	remote  netip.AddrPort   // of the guest; zero when unknown
	local   netip.AddrPort
	log     *slog.Logger // enter adds who the guest is

	// The handshake alone uses these.
	refusedKeys []string // that were offered, for the guest and the log
	reasons     []string // of their refusal, for the log
	explained   bool     // the guest was told why it does not get in

	handshake *time.Timer // closes the connection unless the guest signs in
	entered   sync.Once
	conn      *ssh.ServerConn // set by enter

	ctx            context.Context // ends with the connection
	cancel         context.CancelFunc
	accepted       chan struct{} // holds one for each connection that a forwarding has accepted
	unsentRefusals atomic.Int64  // see refuse
	refusals       atomic.Int64  // see refused
	stay           stay

	mu             sync.Mutex // guards the fields below
	closed         bool       // the connection has ended: no channel may begin
	channels       int
	sessions       int               // that have begun
	running        map[*session]bool // those in which something runs
	noMoreSessions time.Time         // when the guest asked that none begin; zero: never
	listenings     map[listenKey]*listening
	wg             sync.WaitGroup // channels, and what listens; Add only under mu while not closed
}

// sshPort is what the agent calls its own port to programs where the connection has none.
const sshPort = 22

func (s *Server) newGuest(nc net.Conn, clock func() time.Time) *guest {
	g := &guest{server: s, nc: nc, clock: clock, remote: addrPortOf(nc.RemoteAddr()), local: addrPortOf(nc.LocalAddr())}
	if stream, ok := nc.(tunnelStream); ok {
		g.header, g.welcome = stream.Header(), stream.Welcome()
		g.spliced = g.header.Mode != tunnel.ModeEndToEnd // anything else must show a certificate
		g.remote, _ = netip.ParseAddrPort(g.header.Remote)
		g.local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), sshPort)
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.accepted = make(chan struct{}, s.Limits.withDefaults().ChannelsPerConnection)
	g.log = s.logger().With("remote", g.remoteText())
	return g
}

func (g *guest) remoteText() string {
	if !g.remote.IsValid() {
		return ""
	}
	return g.remote.String()
}

// serve serves the connection until it ends and everything that ran on it has ended too.
func (g *guest) serve() {
	defer recoverTo(g.log, func() {})
	defer g.end()
	// A timer, as the library sets deadlines of its own.
	g.handshake = time.AfterFunc(g.server.Limits.withDefaults().Handshake, func() { g.nc.Close() })
	defer g.handshake.Stop()
	srv := &gliderlabs.Server{
		ServerConfigCallback:     func(gliderlabs.Context) *ssh.ServerConfig { return g.config() },
		ConnectionFailedCallback: func(_ net.Conn, err error) { g.failed(err) },
		ChannelHandlers:          map[string]gliderlabs.ChannelHandler{"default": g.handleChannel},
		RequestHandlers:          map[string]gliderlabs.RequestHandler{"default": g.handleGlobal},
	}
	srv.HandleConn(g.nc)
}

// end closes the connection and waits for its channels.
func (g *guest) end() {
	g.nc.Close()
	g.cancel()
	g.endStay()
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.closeForwards()
	g.wg.Wait()
}

// failed logs why a guest did not get in. Who hangs up before saying anything was only looking whether the port is open.
func (g *guest) failed(err error) {
	level := slog.LevelInfo
	if errors.Is(err, io.EOF) {
		level = slog.LevelDebug
	}
	args := []any{"error", lastError(err)}
	if len(g.refusedKeys) > 0 {
		args = append(args, "offered", g.refusedKeys, "reasons", g.reasons)
	}
	g.log.Log(context.Background(), level, "guest not signed in", args...)
}

// enter notes who the guest is. The library hands the connection to handlers only, and starts each of them as soon as the guest
// has asked for something: by then it has signed in.
func (g *guest) enter(conn *ssh.ServerConn) {
	g.entered.Do(func() {
		g.conn = conn
		g.log = g.log.With("identity", auth.IdentityName(conn.Permissions))
		if g.spliced {
			g.log.Info("guest signed in", "spliced", true) // the client is the gateway's
			return
		}
		g.log.Info("guest signed in", "spliced", false, "client", string(conn.ClientVersion()))
	})
}

// permissions returns what the guest may do. Nil, which permits nothing, unless it has signed in.
func (g *guest) permissions() *ssh.Permissions { return g.conn.Permissions }

func (g *guest) identity() string { return auth.IdentityName(g.conn.Permissions) }

// isOpenSSH tells whether the client is OpenSSH's, the one that eow@openssh.com is for.
func (g *guest) isOpenSSH() bool {
	return strings.HasPrefix(string(g.conn.ClientVersion()), "SSH-2.0-OpenSSH")
}

// handleGlobal answers a global request. Forwardings that a guest asks the host to listen for are answered here.
func (g *guest) handleGlobal(ctx gliderlabs.Context, _ *gliderlabs.Server, r *ssh.Request) (ok bool, payload []byte) {
	conn, _ := ctx.Value(gliderlabs.ContextKeyConn).(*ssh.ServerConn)
	if conn == nil {
		return false, nil
	}
	g.enter(conn)
	defer recoverTo(g.log, func() { ok = false })
	if err := auth.AllowGlobal(g.permissions(), auth.Guest, r.Type, r.Payload); err != nil {
		g.refused("refused a global request", r.Type, err)
		return false, nil
	}
	switch r.Type {
	case "keepalive@openssh.com":
		return true, nil
	case "no-more-sessions@openssh.com":
		g.mu.Lock()
		g.noMoreSessions = time.Now()
		g.mu.Unlock()
		return true, nil
	case "tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com":
		return g.handleForward(r)
	}
	return false, nil
}

// handleChannel serves a channel until it has ended. It is the one place where channels begin.
func (g *guest) handleChannel(_ *gliderlabs.Server, conn *ssh.ServerConn, nc ssh.NewChannel, _ gliderlabs.Context) {
	g.enter(conn)
	defer recoverTo(g.log, func() { g.nc.Close() })
	if err := g.beginChannel(nc); err != nil {
		g.refuse(nc, err)
		return
	}
	defer g.endChannel()
	give, err := g.takePlaces(nc.ChannelType())
	if err != nil {
		g.refuse(nc, err)
		return
	}
	defer give()
	switch nc.ChannelType() {
	case "session":
		ch, requests, err := nc.Accept()
		if err != nil {
			return // the connection has ended
		}
		g.serveSession(ch, requests)
	case "direct-tcpip":
		g.serveDirectTCPIP(nc)
	case "direct-streamlocal@openssh.com":
		g.serveDirectStreamlocal(nc)
	default:
		nc.Reject(ssh.UnknownChannelType, "this host does not serve channels of that type")
	}
}

// beginChannel says whether a channel may be opened, and counts it until endChannel.
func (g *guest) beginChannel(nc ssh.NewChannel) error {
	if err := auth.AllowChannel(g.permissions(), auth.Guest, nc.ChannelType(), nc.ExtraData()); err != nil {
		return err
	}
	limit := g.server.Limits.withDefaults().ChannelsPerConnection
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return errors.New("the connection has ended")
	case nc.ChannelType() == "session" && g.sessionsOver():
		return errors.New("no more sessions were asked for")
	case g.channels >= limit:
		return &ssh.OpenChannelError{Reason: ssh.ResourceShortage, Message: "too many channels on this connection"}
	}
	if nc.ChannelType() == "session" {
		g.sessions++
	}
	g.channels++
	g.wg.Add(1)
	return nil
}

// overtaken is how much later than a request that came behind it a session may begin.
const overtaken = 10 * time.Second

// sessionsOver tells whether the guest has asked that no session begin any more. ssh(1) does so right behind the opening of its
// only one. The library hands out openings and requests on goroutines of their own, so that one may still be on its way.
func (g *guest) sessionsOver() bool {
	return !g.noMoreSessions.IsZero() && (g.sessions > 0 || time.Since(g.noMoreSessions) > overtaken)
}

func (g *guest) endChannel() {
	g.mu.Lock()
	g.channels--
	g.mu.Unlock()
	g.wg.Done()
}

// clipped bounds what a guest can put into the log; the handler escapes it.
func clipped(s string) string { return s[:min(len(s), 64)] }

// recoverTo stops a panic, logs it with its stack, and calls f. It is to be deferred.
func recoverTo(log *slog.Logger, f func()) {
	if v := recover(); v != nil {
		log.Error("panic", "panic", v, "stack", string(debug.Stack()))
		f()
	}
}
