package gateway_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// serveHostile signs a guest in, echoes sessions, and does what is to be done to
// the guest's connection meanwhile.
func serveHostile(do func(*ssh.ServerConn)) func(*fakeHost, *tunnel.Stream) {
	return func(h *fakeHost, s *tunnel.Stream) {
		conn, channels, requests, err := h.sshServer(s)
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests)
		done := make(chan struct{})
		go func() {
			defer close(done)
			do(conn)
		}()
		for nc := range channels {
			go echoChannel(nc)
		}
		<-done
	}
}

func echoChannel(nc ssh.NewChannel) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	go func() {
		for r := range reqs {
			r.Reply(true, nil)
		}
	}()
	io.Copy(ch, ch)
	ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
	ch.Close()
}

// echoes reports whether a session on c is answered.
func echoes(c *ssh.Client) error {
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		return err
	}
	defer ch.Close()
	go ssh.DiscardRequests(reqs)
	if _, err := ch.Write([]byte("hello")); err != nil {
		return err
	}
	p := make([]byte, 5)
	if _, err = io.ReadFull(ch, p); err == nil && string(p) != "hello" {
		err = errors.New("something else came back")
	}
	return err
}

// TestHostOpensChannels: no channel reaches a guest that did not ask for it.
func TestHostOpensChannels(t *testing.T) {
	w := newWorld(t)
	k := testenv.NewKey(t, w.dir, "alice")
	types := []string{"forwarded-tcpip", "forwarded-streamlocal@openssh.com", "auth-agent@openssh.com", "agent-connect", "x11",
		"session", "direct-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com", "no-such-type"}
	opened := make(chan string, len(types))
	w.startHost("task-1", w.token("task-1", time.Now(), k), serveHostile(func(c *ssh.ServerConn) {
		for _, typ := range types {
			if ch, _, err := c.OpenChannel(typ, nil); err == nil {
				ch.Close()
				typ += " was opened"
			}
			opened <- typ
		}
		c.SendRequest("hostkeys-00@openssh.com", false, nil)
	}))
	c := w.mustDial("task-1", k)
	for _, typ := range types {
		go func() {
			for nc := range c.HandleChannelOpen(typ) {
				nc.Accept()
			}
		}()
	}
	if err := echoes(c); err != nil {
		t.Fatal(err)
	}
	for _, typ := range types {
		if got := await(t, opened, typ); got != typ {
			t.Error(got)
		}
	}
	if err := echoes(c); err != nil {
		t.Error(err)
	}
	eventually(t, "refusals are logged", func() bool {
		return strings.Contains(w.log.String(), "refused a channel that the host opened and nobody asked for")
	})
}

// TestHostFloods: a host that asks and opens without end ends its guests'
// connections at the worst. Others notice nothing.
func TestHostFloods(t *testing.T) {
	t.Parallel()
	for name, flood := range map[string]func(*ssh.ServerConn) error{
		"channels": func(c *ssh.ServerConn) error {
			_, _, err := c.OpenChannel("forwarded-tcpip", make([]byte, 1000))
			if errors.As(err, new(*ssh.OpenChannelError)) {
				err = nil
			}
			return err
		},
		"requests without a reply": func(c *ssh.ServerConn) error {
			_, _, err := c.SendRequest("keepalive@openssh.com", false, make([]byte, 1000))
			return err
		},
		"unknown requests": func(c *ssh.ServerConn) error {
			_, _, err := c.SendRequest("flood", false, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := testenv.NewKey(t, w.dir, "alice")
			flooded := make(chan struct{})
			w.startHost("task-1", w.token("task-1", time.Now(), k), serveHostile(func(c *ssh.ServerConn) {
				defer close(flooded)
				for range 2000 {
					if flood(c) != nil {
						return
					}
				}
			}))
			w.startHost("task-2", w.token("task-2", time.Now(), k), serveHostile(func(*ssh.ServerConn) {}))
			victim, other := w.mustDial("task-1", k), w.mustDial("task-2", k)
			echoes(victim)
			for flooding := true; flooding; {
				if err := echoes(other); err != nil {
					t.Fatalf("the guest of another host: %v", err)
				}
				select {
				case <-flooded:
					flooding = false
				default:
				}
			}
		})
	}
}
