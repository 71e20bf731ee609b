package splice

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A peer speaks SSH packet by packet, as client or server: it can send what no
// sane implementation sends, and sees the order of messages on the wire, which
// x/crypto/ssh hides. It knows one algorithm of each kind (curve25519-sha256,
// ssh-ed25519, aes128-gcm@openssh.com) and does not check host keys.
type peer struct {
	t       testing.TB
	conn    net.Conn
	r       *bufio.Reader
	isGuest bool // the SSH client

	hash    []byte // session ID
	in, out *gcm
}

// gcm is one direction's cipher. Nil: plain text.
type gcm struct {
	aead cipher.AEAD
	iv   [12]byte
}

// Message numbers of RFC 4250.
const (
	msgServiceRequest = 5
	msgServiceAccept  = 6
	msgKexInit        = 20
	msgNewKeys        = 21
	msgKexInit25519   = 30
	msgKexReply25519  = 31
	msgAuthRequest    = 50
	msgAuthSuccess    = 52
	msgGlobal         = 80
	msgGlobalSuccess  = 81
	msgGlobalFailure  = 82
	msgOpen           = 90
	msgOpenConfirm    = 91
	msgOpenFailure    = 92
	msgAdjust         = 93
	msgData           = 94
	msgExtended       = 95
	msgEOF            = 96
	msgClose          = 97
	msgRequest        = 98
	msgSuccess        = 99
	msgFailure        = 100
)

// newPeer shakes hands over c and signs in as anybody, or lets anybody in.
func newPeer(t testing.TB, c net.Conn, isGuest bool) (*peer, error) {
	p := &peer{t: t, conn: c, r: bufio.NewReader(c), isGuest: isGuest}
	c.SetDeadline(time.Now().Add(patience))
	if err := p.handshake(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if isGuest {
		p.send(ssh.Marshal(struct {
			Service string `sshtype:"5"`
		}{"ssh-userauth"}))
		p.send(ssh.Marshal(struct {
			User, Service, Method string `sshtype:"50"`
		}{"u", "ssh-connection", "none"}))
		return p, p.expect(msgServiceAccept, msgAuthSuccess)
	}
	if err := p.expect(msgServiceRequest); err != nil {
		return nil, err
	}
	p.send(ssh.Marshal(struct {
		Service string `sshtype:"6"`
	}{"ssh-userauth"}))
	err := p.expect(msgAuthRequest)
	p.send([]byte{msgAuthSuccess})
	return p, err
}

func (p *peer) expect(kinds ...byte) error {
	for _, kind := range kinds {
		b, err := p.receive()
		if err != nil {
			return err
		}
		if b[0] != kind {
			return fmt.Errorf("message %d instead of %d", b[0], kind)
		}
	}
	return nil
}

func (p *peer) handshake() error {
	const version = "SSH-2.0-wiretest"
	if _, err := io.WriteString(p.conn, version+"\r\n"); err != nil {
		return err
	}
	theirs, err := p.r.ReadString('\n')
	if err != nil {
		return err
	}
	init := kexInit()
	if err := p.send(init); err != nil {
		return err
	}
	theirInit, err := p.receive()
	if err != nil {
		return err
	}
	versions, inits := []string{version, strings.TrimRight(theirs, "\r\n")}, [][]byte{init, theirInit}
	if !p.isGuest { // the client's come first
		versions[0], versions[1], inits[0], inits[1] = versions[1], versions[0], inits[1], inits[0]
	}
	h := sha256.New()
	for _, b := range [][]byte{[]byte(versions[0]), []byte(versions[1]), inits[0], inits[1]} {
		writeString(h, b)
	}
	secret, err := p.exchange(h)
	if err != nil {
		return err
	}
	p.send([]byte{msgNewKeys})
	if err := p.expect(msgNewKeys); err != nil {
		return err
	}
	p.useKeys(secret)
	return nil
}

func kexInit() []byte {
	b := append([]byte{msgKexInit}, make([]byte, 16)...)
	for _, list := range []string{"curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com", "aes128-gcm@openssh.com",
		"hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
		b = append(b, list...)
	}
	return append(b, 0, 0, 0, 0, 0)
}

// exchange does RFC 8731 and returns the shared secret as an mpint.
func (p *peer) exchange(h io.Writer) ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	var hostKeyBlob, clientKey, serverKey []byte
	if p.isGuest {
		clientKey = key.PublicKey().Bytes()
		p.send(ssh.Marshal(struct {
			Key []byte `sshtype:"30"`
		}{clientKey}))
		b, err := p.receive()
		if err != nil {
			return nil, err
		}
		var reply struct {
			HostKey, Key, Sig []byte `sshtype:"31"`
		}
		if err := ssh.Unmarshal(b, &reply); err != nil {
			return nil, err
		}
		hostKeyBlob, serverKey = reply.HostKey, reply.Key
		return p.finishExchange(h, key, serverKey, hostKeyBlob, clientKey, serverKey)
	}
	b, err := p.receive()
	if err != nil {
		return nil, err
	}
	var init struct {
		Key []byte `sshtype:"30"`
	}
	if err := ssh.Unmarshal(b, &init); err != nil {
		return nil, err
	}
	clientKey, serverKey = init.Key, key.PublicKey().Bytes()
	hostKeyBlob = hostKey().PublicKey().Marshal()
	secret, err := p.finishExchange(h, key, clientKey, hostKeyBlob, clientKey, serverKey)
	if err != nil {
		return nil, err
	}
	sig, err := hostKey().Sign(rand.Reader, p.hash)
	if err != nil {
		return nil, err
	}
	return secret, p.send(ssh.Marshal(struct {
		HostKey, Key, Sig []byte `sshtype:"31"`
	}{hostKeyBlob, serverKey, ssh.Marshal(sig)}))
}

func (p *peer) finishExchange(h io.Writer, key *ecdh.PrivateKey, theirs, hostKey, client, server []byte) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(theirs)
	if err != nil {
		return nil, err
	}
	shared, err := key.ECDH(pub)
	if err != nil {
		return nil, err
	}
	secret := ssh.Marshal(struct{ K *big.Int }{new(big.Int).SetBytes(shared)})
	writeString(h, hostKey)
	writeString(h, client)
	writeString(h, server)
	h.Write(secret)
	p.hash = h.(interface{ Sum([]byte) []byte }).Sum(nil)
	return secret, nil
}

func writeString(w io.Writer, b []byte) {
	w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	w.Write(b)
}

// useKeys derives the keys of RFC 4253 section 7.2.
func (p *peer) useKeys(secret []byte) {
	derive := func(letter byte) []byte {
		h := sha256.New()
		h.Write(secret)
		h.Write(p.hash)
		h.Write([]byte{letter})
		h.Write(p.hash)
		return h.Sum(nil)
	}
	toServer, toClient := newGCM(derive('A'), derive('C')), newGCM(derive('B'), derive('D'))
	p.out, p.in = toServer, toClient
	if !p.isGuest {
		p.out, p.in = toClient, toServer
	}
}

func newGCM(iv, key []byte) *gcm {
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return &gcm{aead: aead, iv: [12]byte(iv[:12])}
}

func (g *gcm) next() []byte {
	iv := g.iv
	binary.BigEndian.PutUint64(g.iv[4:], binary.BigEndian.Uint64(g.iv[4:])+1)
	return iv[:]
}

// send sends messages in one write, so that they arrive as close to each other
// as can be.
func (p *peer) send(messages ...[]byte) error {
	var all []byte
	for _, m := range messages {
		all = p.appendPacket(all, m)
	}
	_, err := p.conn.Write(all)
	return err
}

func (p *peer) appendPacket(b, payload []byte) []byte {
	head := 5 // what padding aligns: with AES-GCM not the length
	if p.out != nil {
		head = 1
	}
	padding := 16 - (head+len(payload))%16
	if padding < 4 {
		padding += 16
	}
	body := append([]byte{byte(padding)}, payload...)
	body = append(body, make([]byte, padding)...)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = append(b, length...)
	if p.out == nil {
		return append(b, body...)
	}
	return p.out.aead.Seal(b, p.out.next(), body, length)
}

// receive returns the next message.
func (p *peer) receive() ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(p.r, length); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(length))
	if p.in != nil {
		n += p.in.aead.Overhead()
	}
	if n > 1<<20 || n < 2 {
		return nil, errors.New("bad packet length")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(p.r, body); err != nil {
		return nil, err
	}
	if p.in != nil {
		var err error
		if body, err = p.in.aead.Open(body[:0], p.in.next(), body, length); err != nil {
			return nil, err
		}
	}
	return body[1 : len(body)-int(body[0])], nil
}

// next returns the next message other than a window adjustment. The test fails
// if there is none.
func (p *peer) next() []byte {
	p.t.Helper()
	for {
		p.conn.SetReadDeadline(time.Now().Add(patience))
		b, err := p.receive()
		if err != nil {
			p.t.Fatalf("receive: %v", err)
		}
		if b[0] != msgAdjust {
			return b
		}
	}
}

// Messages with which peers talk to x/crypto. Channel numbers are small, and
// windows large.

func global(kind string, wantReply bool, payload string) []byte {
	return append(ssh.Marshal(struct {
		Type      string `sshtype:"80"`
		WantReply bool
	}{kind, wantReply}), payload...)
}

func openMessage(kind string, id uint32) []byte {
	return ssh.Marshal(struct {
		Type            string `sshtype:"90"`
		ID, Window, Max uint32
	}{kind, id, 1 << 30, 1 << 15})
}

func confirmMessage(theirs, mine uint32) []byte {
	return ssh.Marshal(struct {
		Theirs, Mine, Window, Max uint32 `sshtype:"91"`
	}{theirs, mine, 1 << 30, 1 << 15})
}

func dataMessage(id uint32, b []byte) []byte {
	return ssh.Marshal(struct {
		ID   uint32 `sshtype:"94"`
		Data []byte
	}{id, b})
}

func requestMessage(id uint32, kind string, wantReply bool, payload string) []byte {
	return append(ssh.Marshal(struct {
		ID        uint32 `sshtype:"98"`
		Type      string
		WantReply bool
	}{id, kind, wantReply}), payload...)
}

func channelMessage(kind byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, id)
}

// describe names a message in a record of the wire.
func describe(b []byte) string {
	switch b[0] {
	case msgGlobal:
		var m struct {
			Type string `sshtype:"80"`
			Rest []byte `ssh:"rest"`
		}
		ssh.Unmarshal(b, &m)
		return m.Type
	case msgRequest:
		var m struct {
			ID   uint32 `sshtype:"98"`
			Type string
			Rest []byte `ssh:"rest"`
		}
		ssh.Unmarshal(b, &m)
		return m.Type
	}
	names := map[byte]string{msgGlobalSuccess: "global success", msgGlobalFailure: "global failure", msgOpen: "open",
		msgOpenConfirm: "confirm", msgOpenFailure: "open failure", msgData: "data", msgExtended: "stderr", msgEOF: "EOF",
		msgClose: "CLOSE", msgSuccess: "success", msgFailure: "failure"}
	if name := names[b[0]]; name != "" {
		return name
	}
	return fmt.Sprint("message ", b[0])
}

// openedBy returns the sender's number of a channel that it opens, or confirms.
func openedBy(t testing.TB, b []byte) uint32 {
	t.Helper()
	switch b[0] {
	case msgOpen:
		var m struct {
			Type string `sshtype:"90"`
			ID   uint32
			Rest []byte `ssh:"rest"`
		}
		if err := ssh.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		return m.ID
	case msgOpenConfirm:
		return binary.BigEndian.Uint32(b[5:])
	}
	t.Fatalf("%s instead of a channel", describe(b))
	return 0
}
