package tunnel

import (
	"bytes"
	"io"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshPair speaks SSH on a stream, the gateway as the client.
func sshPair(t *testing.T, gw, agent *Stream) (client, server ssh.Conn) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	served := run(func() ssh.Conn {
		c, chans, reqs, err := ssh.NewServerConn(agent, config)
		if err != nil {
			return nil
		}
		go ssh.DiscardRequests(reqs)
		go echoChannels(chans)
		return c
	})
	client, chans, reqs, err := ssh.NewClientConn(gw, "", &ssh.ClientConfig{
		HostKeyCallback: ssh.FixedHostKey(signer.PublicKey()),
		Timeout:         hang,
	})
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	go echoChannels(chans)
	return client, await(t, "the server", served)
}

func echoChannels(chans <-chan ssh.NewChannel) {
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		go ssh.DiscardRequests(reqs)
		go func() {
			io.Copy(ch, ch)
			ch.Close()
		}()
	}
}

// When an SSH connection ends, whoever ends it, its stream is free on both
// sides though each user calls Close once and no more.
func TestSSHConnectionFreesItsStream(t *testing.T) {
	tun, l := pair(t)
	for _, by := range []string{"client", "server", "client amid bulk", "server amid bulk"} {
		t.Run(by, func(t *testing.T) {
			gw, agent := openStream(t, tun, l)
			client, server := sshPair(t, gw, agent)
			ch, reqs, err := client.OpenChannel("echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			go ssh.DiscardRequests(reqs)
			got := make([]byte, 5)
			if _, err := ch.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(ch, got); err != nil || !bytes.Equal(got, []byte("hello")) {
				t.Fatalf("read %q, %v", got, err)
			}
			if by == "client amid bulk" || by == "server amid bulk" {
				go ch.Write(make([]byte, 64<<20)) // nobody reads the echo: all windows fill
				eventually(t, "nothing moves any more", func() bool {
					before := tun.LastRead()
					<-time.After(20 * time.Millisecond)
					return tun.LastRead().Equal(before)
				})
			}
			ended := make(chan error, 2)
			go func() { ended <- client.Wait() }()
			go func() { ended <- server.Wait() }()
			if by[0] == 'c' {
				client.Close()
			} else {
				server.Close()
			}
			await(t, "one end", ended)
			await(t, "the other end", ended)
			eventually(t, "the stream is free on both sides", func() bool {
				return tun.Streams() == 0 && l.session.count() == 0 && tun.session.mux.NumStreams() == 1 && l.session.mux.NumStreams() == 1
			})
		})
	}
}
