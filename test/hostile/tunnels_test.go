package hostile

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// badHost is a host with a valid token that does as it likes with its tunnel.
type badHost struct {
	conn    *tls.Conn
	mux     *yamux.Session
	control *yamux.Stream
}

// hello says what a gateway has to hear (package tunnel has the specification), and
// returns its answer. What the agent of this project would never say can be said.
func (w *world) hello(h tunnel.Hello) (*badHost, string) {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots, NextProtos: []string{tunnel.ALPN}})
	mustDo(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	state := c.ConnectionState()
	binding, err := state.ExportKeyingMaterial("EXPORTER-stagedoor-tunnel-1", nil, 32)
	mustDo(w.t, err)
	binding = append([]byte("tls-exporter:"), binding...)
	config := yamux.DefaultConfig()
	config.EnableKeepAlive, config.LogOutput = false, io.Discard
	mux, err := yamux.Client(c, config)
	mustDo(w.t, err)
	w.t.Cleanup(func() { mux.Close() })
	control, err := mux.OpenStream()
	mustDo(w.t, err)

	_, key, _ := ed25519.GenerateKey(rand.Reader)
	h.Version, h.AgentKey = tunnel.Version, key.Public().(ed25519.PublicKey)
	body, err := json.Marshal(h)
	mustDo(w.t, err)
	signed := append([]byte("stagedoor tunnel hello 1\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(binding)))...)
	signed = append(append(signed, binding...), body...)
	sent := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	if _, err := control.Write(append(sent, ed25519.Sign(key, signed)...)); err != nil {
		return &badHost{c, mux, control}, ""
	}

	control.SetReadDeadline(time.Now().Add(patience))
	length := make([]byte, 4)
	if _, err := io.ReadFull(control, length); err != nil {
		return &badHost{c, mux, control}, ""
	}
	answer := make([]byte, binary.BigEndian.Uint32(length))
	if _, err = io.ReadFull(control, answer); err != nil {
		return &badHost{c, mux, control}, ""
	}
	control.SetReadDeadline(time.Time{})
	return &badHost{c, mux, control}, string(answer)
}

func (w *world) badHost(task string) *badHost {
	w.t.Helper()
	h, answer := w.hello(tunnel.Hello{Task: task, Token: w.token(task, w.alice), HostKey: testenv.Signer(w.t).PublicKey().Marshal()})
	if !strings.Contains(answer, "welcome") {
		w.t.Fatalf("the gateway answers %s", answer)
	}
	return h
}

// yamux's frames.
func yamuxFrame(kind byte, flags uint16, stream, length uint32) []byte {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

const (
	yData, yWindow, yPing, yGoAway = 0, 1, 2, 3
	ySYN, yACK, yFIN, yRST         = 1, 2, 4, 8
)

// many writes frames made for each number.
func (h *badHost) many(n int, of func(i uint32) []byte) error {
	var b []byte
	for i := range uint32(n) {
		b = append(b, of(i)...)
		if len(b) > 64<<10 || i == uint32(n)-1 {
			if _, err := h.conn.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return nil
}

// TestTunnelAbuse: a host with a valid token loses its own tunnel at most. The
// session of another task's guest goes on meanwhile.
func TestTunnelAbuse(t *testing.T) {
	w := newWorld(t, "limits:", "  host_timeout: 1s", "  host_grace: 100ms")
	w.startHost("task-b", w.bob, echo)
	bob := w.dial("task-b", w.bob)
	mustDo(t, echoes(bob))
	goroutines := w.metric("go_goroutines")
	message := func(text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	}
	for name, abuse := range map[string]struct {
		dies bool // the tunnel does
		do   func(h *badHost) error
	}{
		"20000 streams": {true, func(h *badHost) error {
			return h.many(20000, func(i uint32) []byte { return yamuxFrame(yWindow, ySYN, 3+2*i, 0) })
		}},
		"the gateway's streams": {true, func(h *badHost) error {
			return h.many(20000, func(i uint32) []byte { return yamuxFrame(yWindow, ySYN, 2+2*i, 0) })
		}},
		"a flood of pings": {true, func(h *badHost) error {
			return h.many(100000, func(i uint32) []byte { return yamuxFrame(yPing, ySYN, 0, i) })
		}},
		"pongs": {true, func(h *badHost) error {
			return h.many(100000, func(i uint32) []byte { return yamuxFrame(yPing, yACK, 0, i) })
		}},
		"more than the window": {true, func(h *badHost) error {
			return h.many(1000, func(uint32) []byte { return append(yamuxFrame(yData, 0, 1, 64<<10), make([]byte, 64<<10)...) })
		}},
		"a frame of 4 GiB": {true, func(h *badHost) error {
			return h.many(1, func(uint32) []byte { return yamuxFrame(yData, 0, 1, 1<<32-1) })
		}},
		"windows without end": {false, func(h *badHost) error {
			return h.many(100000, func(uint32) []byte { return yamuxFrame(yWindow, 0, 1, 1<<32-1) })
		}},
		"closing what is not": {false, func(h *badHost) error {
			return h.many(100000, func(i uint32) []byte { return yamuxFrame(yWindow, yFIN, 1000+i, 0) })
		}},
		"resetting what is not": {false, func(h *badHost) error {
			return h.many(100000, func(i uint32) []byte { return yamuxFrame(yWindow, yRST, 1000+i, 0) })
		}},
		"data for nobody": {false, func(h *badHost) error {
			return h.many(10000, func(i uint32) []byte { return append(yamuxFrame(yData, 0, 1000+i, 100), make([]byte, 100)...) })
		}},
		"going away": {false, func(h *badHost) error {
			return h.many(1000, func(i uint32) []byte { return yamuxFrame(yGoAway, 0, 0, i) })
		}},
		"an unknown kind": {true, func(h *badHost) error { return h.many(10, func(i uint32) []byte { return yamuxFrame(9, 0, 0, i) }) }},
		"another version": {true, func(h *badHost) error {
			return h.many(10, func(i uint32) []byte { return append([]byte{77}, yamuxFrame(0, 0, 1, 0)[1:]...) })
		}},
		"noise":                {true, func(h *badHost) error { return h.many(1, func(uint32) []byte { return noise(7, 1<<20) }) }},
		"messages without end": {false, func(h *badHost) error { return h.say(message(`{"type":"state","reason":"x"}`), 50000) }},
		"a huge message":       {true, func(h *badHost) error { return h.say(binary.BigEndian.AppendUint32(nil, 1<<31), 1) }},
		"no JSON":              {true, func(h *badHost) error { return h.say(message("{{{{"), 1) }},
		"deep JSON":            {true, func(h *badHost) error { return h.say(message(strings.Repeat("[", 16000)), 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := w.badHost("task-" + strings.ToLower(rand.Text()))
			attacked := make(chan error, 1)
			go func() { attacked <- abuse.do(h) }()
			for busy := true; busy; {
				if err := echoes(bob); err != nil {
					t.Fatalf("the guest of another task: %v", err)
				}
				select {
				case err := <-attacked:
					if err != nil && !abuse.dies {
						t.Logf("it ended: %v", err)
					}
					busy = false
				case <-time.After(patience):
					t.Fatal("it goes on for ever")
				default:
				}
			}
			if abuse.dies {
				select {
				case <-h.mux.CloseChan():
				case <-time.After(patience):
					t.Error("the tunnel lives")
				}
			}
			h.conn.Close()
			eventually(t, "the tunnel is gone", func() bool { return w.metric("stagedoor_tunnels") == 1 })
			mustDo(t, echoes(bob))
		})
	}
	if _, peak := w.resident(); peak > 400<<20 {
		t.Errorf("the gateway held %d MiB", peak>>20)
	}
	eventually(t, "the goroutines are gone", func() bool { return w.metric("go_goroutines") < goroutines+50 })
	w.intact()
}

// say writes on the control stream.
func (h *badHost) say(b []byte, n int) error {
	for range n {
		if _, err := h.control.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// TestHostThatNeverAccepts, and reads nothing of what is sent to it: its guests are
// told in time, and nobody else notices.
func TestHostThatNeverAccepts(t *testing.T) {
	w := newWorld(t, "limits:", "  host_timeout: 2s", "  streams_per_tunnel: 16")
	w.startHost("task-b", w.bob, echo)
	h := w.badHost("task-a")
	bob := w.dial("task-b", w.bob)
	results := make(chan error, 40)
	for range cap(results) {
		go func() {
			c, err := ssh.Dial("tcp", w.ssh, w.config("task-a", ssh.PublicKeys(w.alice.Signer)))
			if err != nil {
				results <- err
				return
			}
			defer c.Close()
			out, err := output(c)
			if err == nil || !strings.Contains(out, "stagedoor: ") {
				err = errors.New("no explanation: " + out)
			} else {
				err = nil
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := echoes(bob); err != nil {
			t.Fatalf("the guest of another task: %v", err)
		}
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	select {
	case <-h.mux.CloseChan():
		t.Log("the tunnel was given up")
	default:
	}
	w.intact()
}

// output runs a command and returns what it wrote to stderr.
func output(c *ssh.Client) (string, error) {
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	var stderr strings.Builder
	s.Stderr = &stderr
	err = s.Run("true")
	return stderr.String(), err
}
