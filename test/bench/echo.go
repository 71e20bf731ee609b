//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// pace is how often the paced echo types. No one types as fast, but programs
// that paste or replay do, and every process goes to sleep in between.
const pace = time.Millisecond

// An echoKind is one way to have a byte come back.
type echoKind struct {
	name     string
	terminal bool
	pace     time.Duration
}

var echoKinds = []echoKind{
	{"echo", false, 0},
	{"echo paced", false, pace},
	{"echo pty", true, 0},
	{"echo pty paced", true, pace},
}

// errTerminal is wrapped by errors of an echo on a terminal.
var errTerminal = errors.New("on a terminal")

// echoAll types n keys in each way, on a connection of its own, and returns
// the time that each took to come back, in the order of echoKinds; none for a
// way that there is not.
func (e *entrant) echoAll(ctx context.Context, n int) ([][]time.Duration, error) {
	client, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	times := make([][]time.Duration, len(echoKinds))
	for i, kind := range echoKinds {
		if kind.terminal && e.noTerminal {
			continue
		}
		if times[i], err = echo(client.Client, kind, n); err != nil {
			if kind.terminal {
				err = fmt.Errorf("%w: %w", errTerminal, err)
			}
			return nil, fmt.Errorf("%s: %w", kind.name, errors.Join(ctx.Err(), err))
		}
	}
	return times, nil
}

// echo runs cat on the host. On a terminal its line discipline is raw and does
// not echo, so that the byte goes through a process, as it does in a shell
// that edits its line.
func echo(client *ssh.Client, kind echoKind, n int) ([]time.Duration, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	stdin, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	command := "echo ready; exec cat"
	if kind.terminal {
		if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
			return nil, err
		}
		command = "stty raw -echo; " + command
	}
	if err := session.Start(command); err != nil {
		return nil, err
	}
	if err := expect(stdout, greeting); err != nil {
		return nil, err
	}
	return typeKeys(stdin, stdout, n, kind.pace)
}

// typeKeys writes one byte, waits until it is back, and so on, n times; the
// first tenth more is not counted.
func typeKeys(w io.Writer, r io.Reader, n int, pace time.Duration) ([]time.Duration, error) {
	warm := n/10 + 1
	times := make([]time.Duration, 0, n+warm)
	tick := time.NewTicker(max(pace, time.Microsecond))
	defer tick.Stop()
	key, back := []byte{0}, []byte{0}
	for i := range n + warm {
		if pace > 0 {
			<-tick.C
		}
		key[0] = 'a' + byte(i%26)
		began := time.Now()
		if _, err := w.Write(key); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(r, back); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
		if back[0] != key[0] {
			return nil, fmt.Errorf("typed %q, got %q", key, back)
		}
	}
	return times[warm:], nil
}

// A guestClient is an SSH client with the connections below it.
type guestClient struct {
	*ssh.Client
	below []io.Closer
}

// Close ends the client and what it runs over.
func (c *guestClient) Close() {
	c.Client.Close()
	for _, b := range slices.Backward(c.below) {
		b.Close()
	}
}

// dial goes the way of the guest's ssh, hop by hop, with the algorithms that
// it agreed upon.
func (e *entrant) dial(ctx context.Context) (*guestClient, error) {
	c := new(guestClient)
	for _, h := range e.hops {
		nc, err := e.dialHop(ctx, c.Client, h.address)
		if err != nil {
			return nil, errors.Join(err, c.closeAll())
		}
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		sc, chans, reqs, err := ssh.NewClientConn(nc, h.address, e.clientConfig(h.user))
		stop()
		if err != nil {
			nc.Close()
			return nil, errors.Join(fmt.Errorf("sign in to %s: %w", h.address, err), c.closeAll())
		}
		if c.Client != nil {
			c.below = append(c.below, c.Client)
		}
		c.Client = ssh.NewClient(sc, chans, reqs)
	}
	return c, nil
}

func (c *guestClient) closeAll() error {
	if c.Client != nil {
		c.Close()
	}
	return nil
}

func (e *entrant) dialHop(ctx context.Context, through *ssh.Client, address string) (net.Conn, error) {
	if through != nil {
		return through.DialContext(ctx, "tcp", address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

func (e *entrant) clientConfig(user string) *ssh.ClientConfig {
	config := &ssh.ClientConfig{
		Config: ssh.Config{
			KeyExchanges: []string{e.agreed.KeyExchange},
			Ciphers:      []string{e.agreed.Cipher},
		},
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(e.signer)},
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		// The servers are our own, on this machine, and ssh has checked them.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		Timeout:         time.Minute,
	}
	// The Go library has no umac, which ssh prefers where a MAC is needed.
	if slices.Contains(ssh.SupportedAlgorithms().MACs, e.agreed.MAC) {
		config.MACs = []string{e.agreed.MAC}
	}
	return config
}
