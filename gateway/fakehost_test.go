package gateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// fakeHost is the agent's side of a tunnel without an agent: for hosts that do
// what ours never would.
type fakeHost struct {
	hostKey ssh.Signer
	welcome tunnel.Welcome
	end     context.CancelFunc // ends the tunnel, and waits
}

// startHost registers a host that serves each stream with serve. It ends with the
// test.
func (w *world) startHost(task, token string, serve func(*fakeHost, *tunnel.Stream)) *fakeHost {
	w.t.Helper()
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	h := &fakeHost{hostKey: testenv.Signer(w.t)}
	d := &tunnel.Dialer{
		Gateway: w.https, Key: key, TLSConfig: &tls.Config{RootCAs: w.roots},
		Hello: func() tunnel.Hello {
			return tunnel.Hello{Task: task, Token: token, HostKey: h.hostKey.PublicKey().Marshal()}
		},
	}
	l, err := d.Dial(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	h.welcome = l.Welcome()
	var serving sync.WaitGroup
	serving.Go(func() { h.accept(l, serve) })
	h.end = sync.OnceFunc(func() {
		l.CloseNow()
		serving.Wait()
	})
	w.t.Cleanup(h.end)
	return h
}

func (h *fakeHost) accept(l *tunnel.Listener, serve func(*fakeHost, *tunnel.Stream)) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer c.Close()
			serve(h, c.(*tunnel.Stream))
		})
	}
}

// sshServer is the host's side of a guest's connection, which lets in anybody.
func (h *fakeHost) sshServer(c net.Conn, change ...func(*ssh.ServerConfig)) (*ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(h.hostKey)
	for _, f := range change {
		f(config)
	}
	return ssh.NewServerConn(c, config)
}

// await waits for something to be sent, or a channel to be closed.
func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}
