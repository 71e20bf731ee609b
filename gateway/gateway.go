// Package gateway is the public rendezvous between guests and hosts.
//
// Hosts dial in over TLS (package tunnel) and register a task. Guests connect
// with any SSH client and name the task as the user. The gateway signs a guest
// in, asks its [auth.Authorizer] what the guest may do, opens a stream in the
// tunnel of the task's host, is an SSH client on it, and joins the two SSH
// connections (package splice).
//
// Or they go end to end, with ssh -J GATEWAY TASK: a direct-tcpip channel to port
// 22 of a task is a jump. It leads to the task's agent as bytes, in a stream of
// its own, and the gateway only decides who may open it. The name of the jump
// hop does not matter: under that of a registered task a guest may jump there,
// under any other to every task that its key opens, and do nothing else. What a
// guest learns of a task that it cannot jump to is the same whatever the reason.
//
//	s, err := gateway.New(settings, gateway.Options{Logger: log})
//	…
//	go s.ServeSSH(sshListener)
//	go s.ServeHTTPS(httpsListener)
//	<-ctx.Done()
//	s.Drain(deadline)
package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/gateway/audit"
	"github.com/stagedoor/stagedoor/gateway/registry"
	"github.com/stagedoor/stagedoor/gateway/splice"
	"github.com/stagedoor/stagedoor/tunnel"
)

// ErrClosed is returned by the Serve methods after Drain or Close.
var ErrClosed = errors.New("gateway: closed")

// Options is what a gateway is given once, when it is made.
type Options struct {
	// Registry says where the tunnel of a task is. Default: in memory, for a
	// gateway that stands alone.
	Registry registry.Registry
	// Name tells this gateway from its peers in the registry. Default "local".
	Name string
	// Logger takes the gateway's log. Default: none.
	Logger *slog.Logger
	// Version is shown in the SSH version string.
	Version string
	// Audit takes the events of the gateway. It stays the caller's to close, after
	// Drain or Close has returned. Default: none.
	Audit *audit.Stream
	// StateDir is the directory of what must outlive the gateway, such as which
	// tokens were used. Two gateways must not share it, except for one that drains
	// with its successor. Default: none, and a restart forgets.
	StateDir string
	// Pressed is called when stalled channels hold half of Limits.BufferedBytes,
	// and when they no longer do, for whoever can make room. Default: nobody.
	Pressed func(bool)
}

// Server is a gateway. Its methods may be called at the same time.
type Server struct {
	name     string
	version  string
	log      *slog.Logger
	registry registry.Registry
	settings atomic.Pointer[Settings]
	throttle *throttle
	budget   *splice.Budget
	metrics  *metrics
	used     *usedTokens
	audit    *audit.Stream
	blocks   *blocks
	browsers *browsers

	theirKeys *rememberedKeys
	ended     sync.Once // for the last event
	web       *http.Server
	webConns  *connQueue

	ready atomic.Bool

	ctx    context.Context // ends with Close: everything the gateway waits for hangs on it
	cancel context.CancelFunc
	wg     sync.WaitGroup // one for each connection and listener

	mu         sync.Mutex // guards what follows
	draining   bool
	closed     bool
	listeners  map[net.Listener]struct{}
	pending    map[net.Conn]struct{} // not signed in yet
	hosts      map[string]*host      // by task
	keys       keyIndex              // of their grants
	admitting  map[auth.TaskID]int   // tunnels that are about to be published
	guests     map[*guest]struct{}
	identities map[string]int  // open channels
	connected  map[string]int  // connections, by identity as well
	forges     *forge.Resolver // that is watched
	forgesEnd  func()          // ends that
	revokedEnd func()          // ends the watch over revoked keys
	idle       *sync.Cond      // signalled when a guest leaves
}

// New returns a gateway that is ready to serve. It refuses settings with which
// it could not tell friend from stranger.
func New(settings Settings, o Options) (*Server, error) {
	settings.Limits = settings.Limits.withDefaults()
	settings.Penalties = settings.Penalties.withDefaults()
	if err := settings.validate(); err != nil {
		return nil, err
	}
	used, err := openUsedTokens(o.StateDir)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	remembered, err := openRemembered(o.StateDir)
	if err != nil {
		used.Close()
		return nil, fmt.Errorf("gateway: %w", err)
	}
	blocks, err := openBlocks(o.StateDir)
	if err != nil {
		used.Close()
		return nil, fmt.Errorf("gateway: %w", err)
	}
	settings.Guests = guard{settings.Guests, blocks, settings.Revoked}
	s := &Server{
		used:       used,
		name:       o.Name,
		version:    openSSHLike + "compatible_Stagedoor",
		log:        o.Logger,
		registry:   o.Registry,
		audit:      o.Audit,
		blocks:     blocks,
		browsers:   newBrowsers(),
		theirKeys:  remembered,
		throttle:   newThrottle(),
		budget:     splice.NewBudget(settings.Limits.BufferedBytes, o.Pressed),
		webConns:   newConnQueue(),
		listeners:  make(map[net.Listener]struct{}),
		pending:    make(map[net.Conn]struct{}),
		hosts:      make(map[string]*host),
		keys:       make(keyIndex),
		admitting:  make(map[auth.TaskID]int),
		guests:     make(map[*guest]struct{}),
		identities: make(map[string]int),
		connected:  make(map[string]int),
	}
	setDefault(&s.name, "local")
	if o.Version != "" {
		s.version += "_" + o.Version
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.registry == nil {
		s.registry = registry.NewMemory()
	}
	s.idle = sync.NewCond(&s.mu)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	s.settings.Store(&settings)
	s.watchForges(settings.Forges)
	s.watchRevoked(settings.Revoked)
	s.ready.Store(true)
	s.audit.Record(audit.GatewayStarted{Gateway: s.name})
	s.web = s.newWebServer()
	go s.track(func() { s.web.Serve(s.webConns) })
	return s, nil
}

// Reload takes new settings for connections that come from now on. It returns
// an error and changes nothing when they are not complete. BufferedBytes and
// the listeners stay as they were.
func (s *Server) Reload(settings Settings) error {
	settings.Limits = settings.Limits.withDefaults()
	settings.Penalties = settings.Penalties.withDefaults()
	if err := settings.validate(); err != nil {
		return err
	}
	settings.Guests = guard{settings.Guests, s.blocks, settings.Revoked}
	before := s.settings.Swap(&settings)
	s.watchForges(settings.Forges)
	s.watchRevoked(settings.Revoked)
	s.logHostKeys(before, &settings)
	s.redial(before, &settings)
	return nil
}

// SetReady sets what /readyz answers. A new gateway is ready.
func (s *Server) SetReady(ready bool) { s.ready.Store(ready) }

// ServeSSH accepts guests on l until the gateway drains or closes, and returns
// ErrClosed then. It closes l.
func (s *Server) ServeSSH(l net.Listener) error { return s.serve(l, s.serveGuest) }

// serve runs handle for each connection of l, in a goroutine that Close waits
// for.
func (s *Server) serve(l net.Listener, handle func(net.Conn)) error {
	if !s.addListener(l) {
		l.Close()
		return ErrClosed
	}
	defer s.removeListener(l)
	var delay time.Duration
	for {
		c, err := l.Accept()
		if err != nil {
			if s.stopped() {
				return ErrClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("gateway: accept: %w", err)
			}
			// Mostly a lack of descriptors, which the end of any
			// connection mends: to return would end them all.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Error("cannot accept a connection", "listener", l.Addr().String(), "error", err, "retry_in", delay)
			if !s.sleep(delay) {
				return ErrClosed
			}
			continue
		}
		delay = 0
		go func() {
			defer s.recover("connection", c)
			if !s.track(func() { handle(c) }) {
				c.Close()
			}
		}()
	}
}

// track runs f so that Close waits for it. It reports false, and does not run
// it, when the gateway has closed.
func (s *Server) track(f func()) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	f()
	return true
}

// sleep waits for d, and reports false when the gateway closed meanwhile.
func (s *Server) sleep(d time.Duration) bool {
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// recover keeps a defect in the handling of one connection from ending the
// others.
func (s *Server) recover(what string, c net.Conn) {
	if v := recover(); v != nil {
		s.penalise(remoteAddrPort(c.RemoteAddr()), crashed)
		c.Close()
		s.panicked(what, v, debug.Stack())
	}
}

func (s *Server) panicked(what string, v any, stack []byte) {
	s.metrics.panics.Inc()
	s.log.Error("caught a panic: this is a defect, please report it", "in", what, "panic", fmt.Sprint(v), "stack", string(stack))
}

// Drain ends the gateway in peace. The listeners close at once, so that a
// successor can bind them; agents are told to dial again; guests stay until
// they leave or ctx ends. Then everything is closed. The error is ctx's when
// guests had to be cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.SetReady(false)
	s.stopListening()
	s.browsers.drain()
	s.tellHosts(tunnel.Message{Type: tunnel.TypeDrain})
	following, stop := context.WithCancel(ctx)
	var follower sync.WaitGroup
	follower.Go(func() { s.followBlocks(following) })
	err := s.waitForGuests(ctx)
	stop()
	follower.Wait()
	return errors.Join(err, s.Close())
}

func (s *Server) waitForGuests(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.guests) > 0 && ctx.Err() == nil {
		s.idle.Wait()
	}
	if n := len(s.guests); n > 0 {
		return fmt.Errorf("gateway: %d guests were still connected: %w", n, ctx.Err())
	}
	return nil
}

// Close ends every connection and returns when nothing of the gateway runs any
// more.
func (s *Server) Close() error {
	s.stopListening()
	s.cancel()
	s.closeConns()
	err := s.web.Close()
	s.webConns.Close()
	s.wg.Wait()
	s.budget.Close()
	s.ended.Do(func() { s.audit.Record(audit.GatewayEnded{}) })
	s.used.Close()
	return err
}

// closeConns closes what is open, and lets nothing new in.
func (s *Server) closeConns() {
	for _, end := range s.shut() {
		end()
	}
}

// shut returns what ends each connection: they are to be called without s.mu,
// which a connection that closes takes.
func (s *Server) shut() (ends []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.pending {
		ends = append(ends, func() { c.Close() })
	}
	for g := range s.guests {
		ends = append(ends, func() { g.close(endedByDrain, "the gateway closed") })
	}
	for _, h := range s.hosts {
		if h.forget != nil {
			h.forget.Stop()
		}
		for t := range h.tunnels {
			ends = append(ends, func() { t.Close() })
		}
	}
	return ends
}

func (s *Server) stopListening() {
	defer s.web.SetKeepAlivesEnabled(false) // closes idle connections, which take s.mu
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for l := range s.listeners {
		l.Close()
	}
}

func (s *Server) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// newID names a connection in the log.
func newID() string {
	b := make([]byte, 4)
	rand.Read(b)
	return hex.EncodeToString(b)
}
