package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// maxListenings bounds the forwardings that one connection may make the host listen for.
const maxListenings = 64

// listenKey is what names a listening in the guest's requests: the address as the guest wrote it, and the port that it has got;
// or the path of a socket.
type listenKey struct {
	network, address string // network is "tcp" or "unix"
	port             uint32
}

// opening returns type and payload of the channel for a connection from origin.
type opening func(origin net.Addr) (channelType string, payload []byte)

// listening is what one guest made the host listen for. It belongs to the guest's connection and ends with it.
type listening struct {
	key     listenKey
	guest   *guest
	log     *slog.Logger
	sockets []net.Listener // one for each address
	opening opening
	stopped chan struct{}
	cleanUp func() // nil: nothing to do
}

// handleForward begins and cancels what a guest asks the host to listen for, RFC 4254 §7.1 and OpenSSH PROTOCOL, section 2.4.
func (g *guest) handleForward(r *ssh.Request) (ok bool, reply []byte) {
	var err error
	switch r.Type {
	case "tcpip-forward":
		return g.begin(r, g.listenTCP)
	case "streamlocal-forward@openssh.com":
		return g.begin(r, g.listenSocket)
	case "cancel-tcpip-forward":
		var key listenKey
		if key, err = parseTCPIPForward(r.Payload); err == nil {
			err = g.stopListening(key)
		}
	case "cancel-streamlocal-forward@openssh.com":
		var key listenKey
		if key, err = parseStreamlocalForward(r.Payload); err == nil {
			err = g.stopListening(key)
		}
	}
	if err != nil {
		g.refused("refused a global request", r.Type, err)
	}
	return err == nil, nil
}

// begin answers a request to listen and only then accepts connections: a client refuses those to a port that it was not told.
func (g *guest) begin(r *ssh.Request, listen func(payload []byte) (l *listening, reply []byte, err error)) (bool, []byte) {
	var l *listening
	var reply []byte
	err := g.beginStay()
	if err == nil {
		l, reply, err = listen(r.Payload)
	}
	if err != nil {
		g.refused("refused a global request", r.Type, err)
		return false, nil
	}
	r.Reply(true, reply)
	r.WantReply = false // it has got one
	g.server.attach(g)
	l.serve()
	return true, reply
}

// mayListen says whether there may be another listening under a key.
func (g *guest) mayListen(key listenKey) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.listenings[key] != nil:
		return errors.New("the host listens for this already")
	case len(g.listenings) >= maxListenings:
		return fmt.Errorf("more than %d forwardings on one connection", maxListenings)
	}
	return nil
}

// addListening makes a listening the guest's. When the connection has ended it closes it instead.
func (g *guest) addListening(l *listening) error {
	g.mu.Lock()
	if !g.closed {
		defer g.mu.Unlock()
		if g.listenings == nil {
			g.listenings = make(map[listenKey]*listening)
		}
		g.listenings[l.key] = l
		g.wg.Add(len(l.sockets)) // for serve
		return nil
	}
	g.mu.Unlock()
	l.close()
	return net.ErrClosed
}

// stopListening ends a listening of this guest. Connections that it has accepted live on, as under sshd.
func (g *guest) stopListening(key listenKey) error {
	g.mu.Lock()
	l := g.listenings[key]
	delete(g.listenings, key)
	g.mu.Unlock()
	if l == nil {
		return errors.New("the guest has no such forwarding")
	}
	l.close()
	return nil
}

// closeForwards ends all that this connection made the host listen for.
func (g *guest) closeForwards() {
	g.mu.Lock()
	all := g.listenings
	g.listenings = nil
	g.mu.Unlock()
	for _, l := range all {
		l.close()
	}
}

// newListening describes what listens on sockets from now on.
func (g *guest) newListening(key listenKey, sockets []net.Listener) *listening {
	l := &listening{key: key, guest: g, sockets: sockets, opening: key.opening, stopped: make(chan struct{})}
	l.log = g.log.With("address", strings.Join(l.addresses(), " "))
	return l
}

func (l *listening) addresses() (all []string) {
	for _, s := range l.sockets {
		all = append(all, s.Addr().String())
	}
	return all
}

// close is called once, by who took the listening out of the guest's.
func (l *listening) close() {
	close(l.stopped)
	for _, s := range l.sockets {
		s.Close()
	}
	if l.cleanUp != nil {
		l.cleanUp()
	}
	l.log.Info("no longer listening for the guest")
}

// parseTCPIPForward reads the payload of tcpip-forward and cancel-tcpip-forward.
func parseTCPIPForward(payload []byte) (listenKey, error) {
	var req struct {
		Address string
		Port    uint32
	}
	if err := ssh.Unmarshal(payload, &req); err != nil {
		return listenKey{}, err
	}
	if req.Port > 65535 {
		return listenKey{}, fmt.Errorf("there is no port %d", req.Port)
	}
	if !isHostText(req.Address) {
		return listenKey{}, errors.New("not an address")
	}
	return listenKey{"tcp", req.Address, req.Port}, nil
}

// parseStreamlocalForward reads the payload of streamlocal-forward@openssh.com and cancel-streamlocal-forward@openssh.com.
func parseStreamlocalForward(payload []byte) (listenKey, error) {
	var req struct{ Path string }
	if err := ssh.Unmarshal(payload, &req); err != nil {
		return listenKey{}, err
	}
	return listenKey{network: "unix", address: req.Path}, nil
}

// mayChooseAddress tells whether forwardings may listen on other addresses than the loopback's.
func (g *guest) mayChooseAddress() bool {
	_, ok := g.permissions().Extensions[auth.PermitGatewayPorts]
	return ok
}
