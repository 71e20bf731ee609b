package hostile

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
	"time"

	"golang.org/x/crypto/ssh"
)

// A wire speaks SSH packet by packet, as a client that can send what no sane one
// sends. It knows one algorithm of each kind (curve25519-sha256,
// ssh-ed25519, aes128-gcm@openssh.com) and does not check host keys.
type wire struct {
	conn net.Conn
	r    *bufio.Reader

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
	msgServiceAccept = 6
	msgKexInit       = 20
	msgNewKeys       = 21
	msgAuthFailure   = 51
	msgAuthSuccess   = 52
)

// newWire shakes hands over c. It does not sign in.
func newWire(c net.Conn) (*wire, error) {
	p := &wire{conn: c, r: bufio.NewReader(c)}
	c.SetDeadline(time.Now().Add(patience))
	if err := p.handshake(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return p, nil
}

// signIn signs in with a key.
func (p *wire) signIn(user string, key ssh.Signer) error {
	p.send(service("ssh-userauth"))
	if err := p.expect(msgServiceAccept); err != nil {
		return err
	}
	if err := p.send(p.authRequest(user, key)); err != nil {
		return err
	}
	return p.expect(msgAuthSuccess)
}

func service(name string) []byte {
	return ssh.Marshal(struct {
		Service string `sshtype:"5"`
	}{name})
}

// authRequest proves a key (RFC 4252 section 7).
func (p *wire) authRequest(user string, key ssh.Signer) []byte {
	request := ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
		HasSignature          bool
		Algorithm             string
		Key                   []byte
	}{user, "ssh-connection", "publickey", true, key.PublicKey().Type(), key.PublicKey().Marshal()})
	session := binary.BigEndian.AppendUint32(nil, uint32(len(p.hash)))
	sig, err := key.Sign(rand.Reader, append(append(session, p.hash...), request...))
	if err != nil {
		panic(err)
	}
	blob := ssh.Marshal(sig)
	return append(binary.BigEndian.AppendUint32(request, uint32(len(blob))), blob...)
}

func (p *wire) expect(kinds ...byte) error {
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

func (p *wire) handshake() error {
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
func (p *wire) exchange(h io.Writer) ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	clientKey := key.PublicKey().Bytes()
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
	return p.finishExchange(h, key, reply.Key, reply.HostKey, clientKey, reply.Key)
}

func (p *wire) finishExchange(h io.Writer, key *ecdh.PrivateKey, theirs, hostKey, client, server []byte) ([]byte, error) {
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
func (p *wire) useKeys(secret []byte) {
	derive := func(letter byte) []byte {
		h := sha256.New()
		h.Write(secret)
		h.Write(p.hash)
		h.Write([]byte{letter})
		h.Write(p.hash)
		return h.Sum(nil)
	}
	p.out, p.in = newGCM(derive('A'), derive('C')), newGCM(derive('B'), derive('D'))
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
func (p *wire) send(messages ...[]byte) error {
	var all []byte
	for _, m := range messages {
		all = p.appendPacket(all, m)
	}
	_, err := p.conn.Write(all)
	return err
}

func (p *wire) appendPacket(b, payload []byte) []byte {
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
func (p *wire) receive() ([]byte, error) {
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
