package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
)

// listeners are what the gateway accepts connections on; nil ones are off.
type listeners struct {
	ssh, https, private net.Listener
}

// listen binds all listeners, or none.
func (c *Config) listen(ctx context.Context) (*listeners, error) {
	var l listeners
	for _, one := range []struct {
		key, address string
		into         *net.Listener
	}{{"ssh.listen", c.SSH.Listen, &l.ssh}, {"https.listen", c.HTTPS.Listen, &l.https}, {"private.listen", c.Private.Listen, &l.private}} {
		if off(one.address) {
			continue
		}
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp", one.address)
		if err != nil {
			l.close()
			return nil, explainListen(one.key, one.address, err)
		}
		if one.into != &l.private {
			listener = behindProxies(listener, networks(c.ProxyProtocol.From))
		}
		*one.into = listener
	}
	return &l, nil
}

func (l *listeners) close() {
	for _, one := range []net.Listener{l.ssh, l.https, l.private} {
		if one != nil {
			one.Close()
		}
	}
}

// explainListen says what to do about the usual reasons for which an address
// cannot be bound.
func explainListen(key, address string, err error) error {
	_, port, _ := net.SplitHostPort(address)
	flag := "--" + nameOfKey.Replace(key)
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && port == "22":
		hint = "this machine's own sshd probably holds port 22: choose another with " + flag + " :2222, or move sshd (Port in /etc/ssh/sshd_config) and keep a session open while you do"
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "another program holds the port (ss -ltnp 'sport = :" + port + "' names it): stop it, or choose another with " + flag
	case errors.Is(err, fs.ErrPermission):
		hint = explainPermission(port, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "no interface of this machine has that address: choose one that has, or all of them with " + flag + " :" + port
	default:
		return fmt.Errorf("%s: %w", key, err)
	}
	return fmt.Errorf("%s: %w: %s", key, err, hint)
}

func explainPermission(port, flag string) string {
	if n, err := strconv.Atoi(port); err != nil || n >= 1024 {
		return "this user may not listen there: choose another address with " + flag
	}
	program, err := os.Executable()
	if err != nil {
		program = "stagedoor"
	}
	return "ports below 1024 need a privilege: under systemd set AmbientCapabilities=CAP_NET_BIND_SERVICE, otherwise run setcap cap_net_bind_service=+ep " +
		program + ", or choose another port with " + flag
}
