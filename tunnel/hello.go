package tunnel

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// signatureContext keeps a signature made for a Hello from being taken for
// anything else that the agent's key may sign.
const signatureContext = "stagedoor tunnel hello 1\x00"

// A Hello is what an agent says first: who it is, and why it may come in.
type Hello struct {
	Version      int               `json:"version"`                   // 1; filled in by Dial
	Task         string            `json:"task"`                      // the task that the agent serves, at most 255 bytes; may be empty beside a token that does not name it
	Token        string            `json:"token,omitempty"`           // host token; exactly one of Token and Renewal is set
	Renewal      string            `json:"renewal,omitempty"`         // what an earlier Welcome gave
	AgentKey     ed25519.PublicKey `json:"agent_key"`                 // the same agent, however often it dials; filled in by Dial
	Signature    []byte            `json:"-"`                         // proves AgentKey for this one connection; made by Dial, checked by Accept
	HostKey      []byte            `json:"host_key,omitempty"`        // SSH wire format, at most 16 KiB; opaque here
	Labels       map[string]string `json:"labels,omitempty"`          // at most 32, printable, keys of 1 to 64 bytes, values of up to 256
	EndToEndOnly bool              `json:"end_to_end_only,omitempty"` // the agent takes no spliced guests

	PasswordHash []byte `json:"password_hash,omitempty"` // SHA-256 of the task's one-time password, 32 bytes; opaque here
}

// check reports what a Hello must not be, on both sides.
func (h *Hello) check() error {
	switch {
	case h.Task == "" && h.Token == "" || len(h.Task) > 255 || !printable(h.Task):
		return errors.New("hello: the task is empty, too long or not printable")
	case (h.Token == "") == (h.Renewal == ""):
		return errors.New("hello: needs either a token or a renewal")
	case len(h.AgentKey) != ed25519.PublicKeySize:
		return errors.New("hello: the agent's key is not an ed25519 key")
	case len(h.HostKey) > 16<<10:
		return errors.New("hello: the host key is too long")
	case len(h.PasswordHash) != 0 && len(h.PasswordHash) != sha256.Size:
		return errors.New("hello: the hash of the one-time password is not of 32 bytes")
	case len(h.Labels) > 32:
		return errors.New("hello: more than 32 labels")
	}
	for k, v := range h.Labels {
		if k == "" || len(k) > 64 || len(v) > 256 || !printable(k) || !printable(v) {
			return errors.New("hello: a label is empty, too long or not printable")
		}
	}
	return nil
}

// appendSigned appends the Hello's frame and its signature to buf. The
// signature covers the very bytes of the frame, so that nobody has to agree
// on a canonical form of JSON.
func (h *Hello) appendSigned(buf []byte, key ed25519.PrivateKey, binding []byte) ([]byte, error) {
	frame, err := appendFrame(nil, h, limitHello)
	if err != nil {
		return nil, err
	}
	buf = append(buf, frame...)
	return append(buf, ed25519.Sign(key, signed(binding, frame[4:]))...), nil
}

// signed returns what is signed: context, binding with its length, Hello.
func signed(binding, hello []byte) []byte {
	b := append([]byte(nil), signatureContext...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(binding)))
	b = append(b, binding...)
	return append(b, hello...)
}

// readHello reads a Hello and its signature. A *Refusal is what the agent
// should be told; any other error is a peer that does not speak the protocol.
func readHello(r io.Reader, binding []byte) (Hello, error) {
	var raw json.RawMessage
	if _, err := readFrame(r, &raw, limitHello); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	if v.Version != Version {
		return Hello{}, &Refusal{Code: CodeVersion, Message: fmt.Sprintf("the gateway speaks version %d of the tunnel's protocol, the agent %d", Version, v.Version)}
	}
	var h Hello
	if err := json.Unmarshal(raw, &h); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	if err := h.check(); err != nil {
		return Hello{}, err
	}
	h.Signature = make([]byte, ed25519.SignatureSize)
	if _, err := io.ReadFull(r, h.Signature); err != nil {
		return Hello{}, fmt.Errorf("read hello: signature: %w", noEOF(err))
	}
	if !ed25519.Verify(h.AgentKey, signed(binding, raw), h.Signature) {
		return Hello{}, &Refusal{Code: CodeBadToken, Message: "the agent's key was not proven for this connection: does something between agent and gateway decrypt TLS?"}
	}
	return h, nil
}

// A Welcome is what a gateway answers to an agent that it lets in.
type Welcome struct {
	Address  string    `json:"address"`           // host:port of the gateway's SSH for guests; to be checked with ParseAddress before it is shown
	CA       []byte    `json:"ca,omitempty"`      // SSH wire format of the key that vouches for spliced guests; opaque here
	Deadline time.Time `json:"deadline,omitzero"` // hard end of the task's registration; zero: none
	Policy   []byte    `json:"policy,omitempty"`  // what the operator permits guests at most, which the agent holds end-to-end guests to; opaque here
	Renewal  string    `json:"renewal,omitempty"` // credential for coming back
	Task     string    `json:"task,omitempty"`    // the task that was registered, opaque here: for an agent whose token does not name it
	Now      time.Time `json:"now,omitzero"`      // the gateway's clock, as agents' clocks are often wrong; filled in by Accept when zero
}

// reply is what the gateway answers to a Hello: one of the two.
type reply struct {
	Welcome *Welcome `json:"welcome,omitempty"`
	Refusal *Refusal `json:"refusal,omitempty"`
}

// readReply reads the answer to a Hello; a refusal is a *Refusal.
func readReply(r io.Reader) (Welcome, error) {
	var a reply
	if _, err := readFrame(r, &a, limitReply); err != nil {
		return Welcome{}, fmt.Errorf("read the gateway's answer: %w", noEOF(err))
	}
	switch {
	case a.Refusal != nil:
		return Welcome{}, a.Refusal.plain()
	case a.Welcome == nil:
		return Welcome{}, errors.New("read the gateway's answer: neither welcome nor refusal")
	}
	return *a.Welcome, nil
}

// Modes of a stream.
const (
	ModeSpliced  = "spliced"    // the gateway is the SSH client and has signed the guest in
	ModeEndToEnd = "end-to-end" // the guest is the SSH client, the gateway passes bytes
)

// A StreamHeader is what a gateway says first on each stream.
type StreamHeader struct {
	Mode        string `json:"mode"`                  // ModeSpliced or ModeEndToEnd
	Remote      string `json:"remote,omitempty"`      // the guest's address, ip:port; empty: unknown
	Certificate []byte `json:"certificate,omitempty"` // spliced: the guest's certificate, at most 16 KiB; opaque here
}

// check reports what a StreamHeader must not be, on both sides.
func (h *StreamHeader) check() error {
	if h.Mode != ModeSpliced && h.Mode != ModeEndToEnd {
		return errors.New("stream header: unknown mode")
	}
	if len(h.Certificate) > 16<<10 {
		return errors.New("stream header: the certificate is too long")
	}
	if _, err := netip.ParseAddrPort(h.Remote); h.Remote != "" && err != nil {
		return errors.New("stream header: the remote address is not ip:port")
	}
	return nil
}

// readStreamHeader reads and checks a stream's header.
func readStreamHeader(r io.Reader) (StreamHeader, error) {
	var h StreamHeader
	if _, err := readFrame(r, &h, limitHeader); err != nil {
		return h, fmt.Errorf("read stream header: %w", noEOF(err))
	}
	return h, h.check()
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
