package gateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"strings"
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
	l, err := w.tunnelDialer(task, token, key, h.hostKey).Dial(w.t.Context())
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

// tunnelDialer registers a host by hand.
func (w *world) tunnelDialer(task, token string, key ed25519.PrivateKey, hostKey ssh.Signer) *tunnel.Dialer {
	return &tunnel.Dialer{
		Gateway: w.https, Key: key, TLSConfig: &tls.Config{RootCAs: w.roots},
		Hello: func() tunnel.Hello {
			return tunnel.Hello{Task: task, Token: token, HostKey: hostKey.PublicKey().Marshal()}
		},
	}
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

// metric is the value of one of the gateway's metrics, "" if there is none.
func (w *world) metric(name string) string {
	r := httptest.NewRecorder()
	w.server.PrivateHandler().ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(r.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
