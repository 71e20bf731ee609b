package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/sshwire"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// raw is a connection to the SSH listener on which nothing was said.
func (w *world) raw() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.ssh)
	mustDo(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// wire is a connection with the key exchange behind it.
func (w *world) wire() *wire {
	w.t.Helper()
	p, err := newWire(w.raw())
	mustDo(w.t, err)
	return p
}

// drain reads until the gateway hangs up, and reports whether it did.
func drain(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	return err == nil || !os.IsTimeout(err)
}

// noise is the same at each run.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// TestWireBeforeKeyExchange sends what no client says, and a good handshake with
// bits flipped, and has the gateway hang up each time.
func TestWireBeforeKeyExchange(t *testing.T) {
	w := newWorld(t, "limits:", "  handshake_timeout: 2s", "  unauthenticated_per_source: 1000")
	w.startHost("task-b", w.bob, echo)
	const version = "SSH-2.0-x\r\n"
	lengths := func(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte(version), n) }
	sent := [][]byte{
		bytes.Repeat([]byte{'A'}, 1<<20), // a version without end
		bytes.Repeat([]byte("no version\r\n"), 50000),
		[]byte("SSH-1.5-old\r\n"), []byte("SSH-2.0-\x00\x1b[2J\r\n"), []byte("\r\n\r\n"), {0}, {0xff, 0xfe},
		append(lengths(0), make([]byte, 64)...), append(lengths(1), 0), append(lengths(1<<31), make([]byte, 1<<16)...),
		append(lengths(0xffffffff), make([]byte, 1<<16)...), append(lengths(256<<10+1), make([]byte, 300<<10)...), // RFC 4253: 35000 is enough
		append(lengths(12), bytes.Repeat([]byte{255}, 12)...), // nothing but padding
		append([]byte(version), sshwire.PlainPacket([]byte{msgNewKeys})...),
		append([]byte(version), bytes.Repeat(sshwire.PlainPacket([]byte{2, 0, 0, 0, 0}), 1000)...), // ignore, which strict key exchange forbids
		append([]byte(version), sshwire.PlainPacket(append([]byte{msgKexInit}, bytes.Repeat([]byte{0xff}, 64)...))...),
		append([]byte(version), sshwire.PlainPacket(sshwire.KexInit()[:40])...),
		append(append([]byte(version), sshwire.PlainPacket(sshwire.KexInit())...), sshwire.PlainPacket(append([]byte{30, 0, 0, 0, 32}, make([]byte, 32)...))...), // a point of low order
		append(append([]byte(version), sshwire.PlainPacket(sshwire.KexInit())...), sshwire.PlainPacket([]byte{30, 0xff, 0xff, 0xff, 0xff})...),
	}
	good := append(append([]byte(version), sshwire.PlainPacket(sshwire.KexInit())...), sshwire.PlainPacket(append([]byte{30, 0, 0, 0, 32}, noise(1, 32)...))...)
	for i := range uint64(300) {
		bad := bytes.Clone(good)
		for j, at := range noise(i, 1+int(i%4)) {
			bad[(int(at)<<1+j*7+int(i))%len(bad)] ^= 1 << (i % 8)
		}
		sent = append(sent, bad, append([]byte(version), noise(1000+i, 200)...))
	}
	var conns []net.Conn
	for _, b := range sent {
		c := w.raw()
		go c.Write(b) // some are not read to the end
		conns = append(conns, c)
	}
	for i, c := range conns {
		if !drain(c) {
			t.Errorf("connection %d is still open", i)
		}
		c.Close()
	}
	w.intact()
}

// TestMessagesBeforeSignIn: whoever has not signed in opens no channel and asks
// for nothing, whatever is sent.
func TestMessagesBeforeSignIn(t *testing.T) {
	w := newWorld(t, "limits:", "  handshake_timeout: 5s")
	opened := make(chan string, 100)
	w.startHost("task-a", w.alice, func(nc ssh.NewChannel) {
		opened <- nc.ChannelType()
		nc.Reject(ssh.Prohibited, "")
	})
	w.startHost("task-b", w.bob, echo)
	open := ssh.Marshal(struct {
		Type            string `sshtype:"90"`
		ID, Window, Max uint32
	}{"session", 0, 1 << 20, 1 << 15})
	early := map[string][][]byte{
		"a channel":                    {open},
		"a channel behind the service": {sshwire.Service("ssh-userauth"), open},
		"the connection's service":     {sshwire.Service("ssh-connection"), open},
		"a global request":             {sshwire.Service("ssh-userauth"), append([]byte{80, 0, 0, 0, 13}, "tcpip-forward\x01"...)},
		"success":                      {sshwire.Service("ssh-userauth"), {msgAuthSuccess}, open},
		"an answer to no question":     {sshwire.Service("ssh-userauth"), {61, 0, 0, 0, 1, 0, 0, 0, 0}, open},
		"data":                         {sshwire.Service("ssh-userauth"), append([]byte{94, 0, 0, 0, 0, 0, 0, 0, 1}, 'x')},
		"an unknown message":           {sshwire.Service("ssh-userauth"), {200}, open},
		"empty":                        {{}},
	}
	for i := range uint64(200) {
		m := noise(i, 1+int(i))
		m[0] = byte(i)
		early[fmt.Sprint("message ", i)] = [][]byte{sshwire.Service("ssh-userauth"), m, open}
	}
	for name, messages := range early {
		p := w.wire()
		p.Send(messages...)
		for {
			b, err := p.Receive()
			if err != nil {
				break
			}
			if b[0] >= 80 || b[0] == msgAuthSuccess {
				t.Errorf("%s: answered with message %d", name, b[0])
			}
			if b[0] == msgAuthFailure { // it was an attempt, and counts as one
				p.conn.Close()
			}
		}
		p.conn.Close()
	}
	if len(opened) > 0 {
		t.Errorf("the host saw a channel of type %q", <-opened)
	}
	w.intact()
}

// TestWireAfterSignIn: what a guest sends behind its sign-in ends its own
// connection at most.
func TestWireAfterSignIn(t *testing.T) {
	w := newWorld(t)
	w.startHost("task-a", w.alice, echo)
	w.startHost("task-b", w.bob, echo)
	bob := w.dial("task-b", w.bob)
	fuzz := func(do func(p *wire)) {
		t.Helper()
		p := w.wire()
		mustDo(t, p.SignInKey("task-a", w.alice.Signer))
		do(p)
		p.conn.(*net.TCPConn).CloseWrite()
		if !drain(p.conn) {
			t.Error("a connection is still open")
		}
		p.conn.Close()
		if err := echoes(bob); err != nil {
			t.Fatalf("another guest: %v", err)
		}
	}
	for i := range uint64(120) {
		fuzz(func(p *wire) {
			for j := range uint64(20) {
				m := noise(i*100+j, 5+int((i*7+j)%300))
				m[0] = byte(80 + (i+j)%21) // the connection protocol
				if j%3 == 0 {
					copy(m[1:], []byte{0, 0, 0, byte(j % 8)}) // a channel or length that may exist
				}
				p.Send(m)
			}
		})
	}
	for _, garbage := range [][]byte{noise(1, 1<<16), bytes.Repeat([]byte{0}, 1000), bytes.Repeat([]byte{255}, 1000)} {
		fuzz(func(p *wire) { p.conn.Write(garbage) })
	}
	fuzz(func(p *wire) { p.Send(sshwire.KexInit()) }) // a rekey that stalls
	fuzz(func(p *wire) { p.Send(sshwire.KexInit(), sshwire.KexInit(), []byte{msgNewKeys}) })
	fuzz(func(p *wire) { p.Send(sshwire.Service("ssh-userauth"), p.AuthRequest("task-b", w.alice.Signer)) }) // a second sign-in
	w.intact()
}

// TestAuthFloods: attempts without end are cut off, whatever they try.
func TestAuthFloods(t *testing.T) {
	w := newWorld(t, "limits:", "  handshake_timeout: 5s", "  auth_tries: 6")
	w.startHost("task-b", w.bob, echo)
	request := func(user, method string, rest []byte) []byte {
		return append(ssh.Marshal(struct {
			User, Service, Method string `sshtype:"50"`
		}{user, "ssh-connection", method}), rest...)
	}
	offer := func(user string) []byte {
		key := testenv.Signer(t).PublicKey()
		return request(user, "publickey", ssh.Marshal(struct {
			HasSignature bool
			Algorithm    string
			Key          []byte
		}{false, key.Type(), key.Marshal()}))
	}
	for name, next := range map[string]func(i int) []byte{
		"none":             func(int) []byte { return request("task-b", "none", nil) },
		"passwords":        func(int) []byte { return request("task-b", "password", append([]byte{0, 0, 0, 0, 4}, "pass"...)) },
		"keys":             func(int) []byte { return offer("task-b") },
		"names":            func(i int) []byte { return offer(fmt.Sprint("user", i)) },
		"one's key":        func(int) []byte { return request("task-b", "publickey", offeredKey(w.bob)) },
		"unknown methods":  func(i int) []byte { return request("task-b", fmt.Sprint("method", i), nil) },
		"huge names":       func(int) []byte { return request(strings.Repeat("x", 200<<10), "none", nil) },
		"another service":  func(int) []byte { return append([]byte{50}, sshwire.Service("x")...) },
		"half a request":   func(int) []byte { return []byte{50, 0, 0, 0, 9, 'x'} },
		"interactive ones": func(int) []byte { return request("task-b", "keyboard-interactive", make([]byte, 8)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := w.wire()
			p.Send(sshwire.Service("ssh-userauth"))
			answers := 0
			go func() {
				for i := range 5000 {
					if p.Send(next(i)) != nil {
						return
					}
				}
			}()
			for {
				b, err := p.Receive()
				if err != nil {
					break
				}
				if b[0] == msgAuthSuccess {
					t.Fatal("it was let in")
				}
				if answers++; answers > 1000 {
					t.Fatal("it is answered on and on")
				}
			}
			p.conn.Close()
		})
	}
	w.intact()
}

func offeredKey(k testenv.Key) []byte {
	return ssh.Marshal(struct {
		HasSignature bool
		Algorithm    string
		Key          []byte
	}{false, k.Signer.PublicKey().Type(), k.Signer.PublicKey().Marshal()})
}

// TestGiantRSAKeys: to verify with a key whose modulus fills a packet would take
// seconds. The gateway spends next to nothing on one.
func TestGiantRSAKeys(t *testing.T) {
	w := newWorld(t)
	w.startHost("task-b", w.bob, echo)
	giant := func(bits int, exponent int64) []byte {
		n := new(big.Int).SetBytes(noise(3, bits/8))
		n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
		return ssh.Marshal(struct {
			Type string
			E, N *big.Int
		}{"ssh-rsa", big.NewInt(exponent), n})
	}
	const attempts = 200
	before := w.cpu()
	tries := 0
	for tries < attempts {
		p := w.wire()
		p.Send(sshwire.Service("ssh-userauth"))
		mustDo(t, p.Expect(msgServiceAccept))
		for range 6 {
			key := giant([]int{16384, 65536, 131072}[tries%3], []int64{65537, 1<<31 - 1}[tries%2])
			signature := ssh.Marshal(struct {
				Format string
				Blob   []byte
			}{"rsa-sha2-512", noise(4, 16384/8)})
			p.Send(ssh.Marshal(struct {
				User, Service, Method string `sshtype:"50"`
				HasSignature          bool
				Algorithm             string
				Key, Signature        []byte
			}{"task-b", "ssh-connection", "publickey", true, "rsa-sha2-512", key, signature}))
			tries++
			if b, err := p.Receive(); err != nil || b[0] == msgAuthSuccess {
				break
			}
		}
		p.conn.Close()
	}
	spent := w.cpu() - before
	t.Logf("%v of CPU for %d keys, handshakes included", spent, tries)
	if spent > time.Duration(tries)*50*time.Millisecond {
		t.Errorf("%v for each", spent/time.Duration(tries))
	}
	w.intact()
}

// cpu is the time that the gateway has computed.
func (w *world) cpu() time.Duration {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.gateway.Cmd.Process.Pid))
	if err != nil {
		testenv.Skip(w.t, "needs /proc")
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond // of which Linux counts 100 in a second
}
