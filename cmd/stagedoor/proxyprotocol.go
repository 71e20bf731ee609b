package main

import (
	"net"
	"net/netip"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// proxyFrom is the setting that says whose word counts.
const proxyFrom = "proxy_protocol.from"

// proxyHeaderTimeout is how long a load balancer may take to say who connects. It
// does so in its first packet.
const proxyHeaderTimeout = 5 * time.Second

// behindProxies takes the address of a guest or agent from the PROXY protocol
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt) on connections from
// some networks, which have to speak it: whether they do must not be guessed. On
// those of all others it means nothing.
func behindProxies(l net.Listener, from []netip.Prefix) net.Listener {
	if len(from) == 0 {
		return l
	}
	return &proxyproto.Listener{
		Listener:          l,
		ReadHeaderTimeout: proxyHeaderTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if isAmong(o.Upstream, from) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}
}

func isAmong(a net.Addr, networks []netip.Prefix) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
