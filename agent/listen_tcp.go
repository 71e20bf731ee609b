package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// lookupTimeout bounds how long the name of an address to listen on may hold up the requests behind it.
const lookupTimeout = 3 * time.Second

// wildcards and loopbacks are what a forwarding listens on that names no address.
var (
	wildcards = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
)

// listenTCP begins to listen for a tcpip-forward. The reply names the port when the guest left that to the host.
func (g *guest) listenTCP(payload []byte) (l *listening, reply []byte, err error) {
	key, err := parseTCPIPForward(payload)
	if err != nil {
		return nil, nil, err
	}
	if err := g.mayListen(key); err != nil {
		return nil, nil, err
	}
	addrs, err := bindAddrs(g.ctx, key.address, g.mayChooseAddress())
	if err != nil {
		return nil, nil, err
	}
	sockets, err := listenTogether(g.ctx, addrs, uint16(key.port))
	if err != nil {
		return nil, nil, err
	}
	if key.port == 0 {
		key.port = uint32(portOf(sockets[0]))
		reply = binary.BigEndian.AppendUint32(nil, key.port)
	}
	l = g.newListening(key, sockets)
	return l, reply, g.addListening(l)
}

// bindAddrs returns what sshd listens on for an address: with GatewayPorts clientspecified if any may be chosen, otherwise with
// GatewayPorts no, where everything but the two loopback addresses means both of them.
func bindAddrs(ctx context.Context, address string, mayChoose bool) ([]netip.Addr, error) {
	addr, err := netip.ParseAddr(address)
	switch {
	case address == "127.0.0.1" || address == "::1":
		return []netip.Addr{addr}, nil
	case !mayChoose || address == "localhost":
		return loopbacks, nil
	case address == "" || address == "*":
		return wildcards, nil
	case err == nil:
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", address)
}

// listenTogether listens on several addresses with the same port. As under sshd it is enough that one of them can be had. Of the
// ports to choose from for 0, it prefers one that is free on all.
func listenTogether(ctx context.Context, addrs []netip.Addr, port uint16) (sockets []net.Listener, err error) {
	for tries := 10; ; tries-- {
		sockets, err = listenEach(ctx, addrs, port)
		if len(sockets) == 0 {
			return nil, err
		}
		if port != 0 || tries == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return sockets, nil
		}
		closeAll(sockets)
	}
}

// listenEach returns the sockets that could be had, and why the last of the others could not.
func listenEach(ctx context.Context, addrs []netip.Addr, port uint16) (sockets []net.Listener, failure error) {
	var config net.ListenConfig
	for _, addr := range addrs {
		addr, network := addr.Unmap(), "tcp6" // never "tcp": the other family has a socket of its own
		if addr.Is4() {
			network = "tcp4"
		}
		s, err := config.Listen(ctx, network, net.JoinHostPort(addr.String(), strconv.Itoa(int(port))))
		if err != nil {
			failure = err
			continue
		}
		sockets, port = append(sockets, s), portOf(s)
	}
	return sockets, failure
}

func portOf(s net.Listener) uint16 { return addrPortOf(s.Addr()).Port() }

func closeAll(sockets []net.Listener) {
	for _, s := range sockets {
		s.Close()
	}
}
