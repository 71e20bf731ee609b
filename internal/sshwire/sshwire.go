// Package sshwire speaks SSH packet by packet, for tests: it can send what no sane
// implementation sends, and sees the order of messages on the wire, which
// x/crypto/ssh hides.
package sshwire

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

	"golang.org/x/crypto/ssh"
)

// A Conn is one end of an SSH connection. It knows one algorithm of each kind
// (curve25519-sha256, ssh-ed25519, aes128-gcm@openssh.com) and checks neither host
// keys nor whoever signs in. Its methods may be called by one goroutine at a time
// for each direction. Whoever made the net.Conn closes it and sets its deadlines.
type Conn struct {
	net     net.Conn
	r       *bufio.Reader
	client  bool
	hostKey ssh.Signer // of a server

	hash    []byte // session ID
	in, out *gcm
}

// gcm is one direction's cipher. Nil: plain text.
type gcm struct {
	aead cipher.AEAD
	iv   [12]byte
}

// Message numbers of the transport and of signing in, RFC 4250 §4.1.2.
const (
	msgServiceRequest = 5
	msgServiceAccept  = 6
	msgKexInit        = 20
	msgNewKeys        = 21
	msgAuthRequest    = 50
	msgAuthSuccess    = 52
)

// Client shakes hands over c as a client. It does not sign in.
func Client(c net.Conn) (*Conn, error) {
	p := &Conn{net: c, r: bufio.NewReader(c), client: true}
	return p, p.handshake()
}

// Server shakes hands over c as a server with this ed25519 host key. It lets
// nobody in yet.
func Server(c net.Conn, hostKey ssh.Signer) (*Conn, error) {
	p := &Conn{net: c, r: bufio.NewReader(c), hostKey: hostKey}
	return p, p.handshake()
}

// SignInNone signs a client in by the method none.
func (c *Conn) SignInNone(user string) error {
	err := c.Send(Service("ssh-userauth"), ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
	}{user, "ssh-connection", "none"}))
	return errors.Join(err, c.Expect(msgServiceAccept, msgAuthSuccess))
}

// SignInKey signs a client in by its key.
func (c *Conn) SignInKey(user string, key ssh.Signer) error {
	if err := c.Send(Service("ssh-userauth")); err != nil {
		return err
	}
	if err := c.Expect(msgServiceAccept); err != nil {
		return err
	}
	if err := c.Send(c.AuthRequest(user, key)); err != nil {
		return err
	}
	return c.Expect(msgAuthSuccess)
}

// LetIn lets in whoever signs in by one request.
func (c *Conn) LetIn() error {
	if err := c.Expect(msgServiceRequest); err != nil {
		return err
	}
	if err := c.Send(ssh.Marshal(struct {
		Service string `sshtype:"6"`
	}{"ssh-userauth"})); err != nil {
		return err
	}
	return errors.Join(c.Expect(msgAuthRequest), c.Send([]byte{msgAuthSuccess}))
}

// Service returns the message that asks for a service, RFC 4253 §10.
func Service(name string) []byte {
	return ssh.Marshal(struct {
		Service string `sshtype:"5"`
	}{name})
}

// AuthRequest returns a sign-in that proves a key, RFC 4252 §7. It panics when the
// key does not sign.
func (c *Conn) AuthRequest(user string, key ssh.Signer) []byte {
	request := ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
		HasSignature          bool
		Algorithm             string
		Key                   []byte
	}{user, "ssh-connection", "publickey", true, key.PublicKey().Type(), key.PublicKey().Marshal()})
	session := binary.BigEndian.AppendUint32(nil, uint32(len(c.hash)))
	sig, err := key.Sign(rand.Reader, append(append(session, c.hash...), request...))
	if err != nil {
		panic(err)
	}
	blob := ssh.Marshal(sig)
	return append(binary.BigEndian.AppendUint32(request, uint32(len(blob))), blob...)
}

// PlainPacket frames a message as before the first key exchange.
func PlainPacket(payload []byte) []byte { return new(Conn).appendPacket(nil, payload) }

// Expect receives messages and fails unless they are of these kinds, in this order.
func (c *Conn) Expect(kinds ...byte) error {
	for _, kind := range kinds {
		b, err := c.Receive()
		if err != nil {
			return err
		}
		if b[0] != kind {
			return fmt.Errorf("message %d instead of %d", b[0], kind)
		}
	}
	return nil
}

func (c *Conn) handshake() error {
	const version = "SSH-2.0-wiretest"
	if _, err := io.WriteString(c.net, version+"\r\n"); err != nil {
		return err
	}
	theirs, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	init := KexInit()
	if err := c.Send(init); err != nil {
		return err
	}
	theirInit, err := c.Receive()
	if err != nil {
		return err
	}
	versions, inits := []string{version, strings.TrimRight(theirs, "\r\n")}, [][]byte{init, theirInit}
	if !c.client { // the client's come first
		versions[0], versions[1], inits[0], inits[1] = versions[1], versions[0], inits[1], inits[0]
	}
	h := sha256.New()
	for _, b := range [][]byte{[]byte(versions[0]), []byte(versions[1]), inits[0], inits[1]} {
		writeString(h, b)
	}
	secret, err := c.exchange(h)
	if err != nil {
		return err
	}
	c.Send([]byte{msgNewKeys})
	if err := c.Expect(msgNewKeys); err != nil {
		return err
	}
	c.useKeys(secret)
	return nil
}

// KexInit returns the message with which this package begins a key exchange, RFC 4253 §7.1.
func KexInit() []byte {
	b := append([]byte{msgKexInit}, make([]byte, 16)...)
	for _, list := range []string{"curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com", "aes128-gcm@openssh.com",
		"hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
		b = append(b, list...)
	}
	return append(b, 0, 0, 0, 0, 0)
}

// exchange does RFC 8731 and returns the shared secret as an mpint.
func (c *Conn) exchange(h io.Writer) ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	var hostKeyBlob, clientKey, serverKey []byte
	if c.client {
		clientKey = key.PublicKey().Bytes()
		c.Send(ssh.Marshal(struct {
			Key []byte `sshtype:"30"`
		}{clientKey}))
		b, err := c.Receive()
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
		return c.finishExchange(h, key, serverKey, hostKeyBlob, clientKey, serverKey)
	}
	b, err := c.Receive()
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
	hostKeyBlob = c.hostKey.PublicKey().Marshal()
	secret, err := c.finishExchange(h, key, clientKey, hostKeyBlob, clientKey, serverKey)
	if err != nil {
		return nil, err
	}
	sig, err := c.hostKey.Sign(rand.Reader, c.hash)
	if err != nil {
		return nil, err
	}
	return secret, c.Send(ssh.Marshal(struct {
		HostKey, Key, Sig []byte `sshtype:"31"`
	}{hostKeyBlob, serverKey, ssh.Marshal(sig)}))
}

func (c *Conn) finishExchange(h io.Writer, key *ecdh.PrivateKey, theirs, hostKey, client, server []byte) ([]byte, error) {
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
	c.hash = h.(interface{ Sum([]byte) []byte }).Sum(nil)
	return secret, nil
}

func writeString(w io.Writer, b []byte) {
	w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	w.Write(b)
}

// useKeys derives the keys of RFC 4253 section 7.2.
func (c *Conn) useKeys(secret []byte) {
	derive := func(letter byte) []byte {
		h := sha256.New()
		h.Write(secret)
		h.Write(c.hash)
		h.Write([]byte{letter})
		h.Write(c.hash)
		return h.Sum(nil)
	}
	toServer, toClient := newGCM(derive('A'), derive('C')), newGCM(derive('B'), derive('D'))
	c.out, c.in = toServer, toClient
	if !c.client {
		c.out, c.in = toClient, toServer
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

// Send sends messages in one write, so that they arrive as close to each other
// as can be.
func (c *Conn) Send(messages ...[]byte) error {
	var all []byte
	for _, m := range messages {
		all = c.appendPacket(all, m)
	}
	_, err := c.net.Write(all)
	return err
}

func (c *Conn) appendPacket(b, payload []byte) []byte {
	head := 5 // what padding aligns: with AES-GCM not the length
	if c.out != nil {
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
	if c.out == nil {
		return append(b, body...)
	}
	return c.out.aead.Seal(b, c.out.next(), body, length)
}

// Receive returns the next message. The deadline is the connection's.
func (c *Conn) Receive() ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(c.r, length); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(length))
	if c.in != nil {
		n += c.in.aead.Overhead()
	}
	if n > 1<<20 || n < 2 {
		return nil, errors.New("bad packet length")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, err
	}
	if c.in != nil {
		var err error
		if body, err = c.in.aead.Open(body[:0], c.in.next(), body, length); err != nil {
			return nil, err
		}
	}
	return body[1 : len(body)-int(body[0])], nil
}
