package splice

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/sshwire"
)

// A peer is an SSH client or server that sends and sees single messages.
type peer struct {
	*sshwire.Conn
	t    testing.TB
	conn net.Conn
}

// Message numbers of RFC 4250.
const (
	msgGlobal        = 80
	msgGlobalSuccess = 81
	msgGlobalFailure = 82
	msgOpen          = 90
	msgOpenConfirm   = 91
	msgOpenFailure   = 92
	msgAdjust        = 93
	msgData          = 94
	msgExtended      = 95
	msgEOF           = 96
	msgClose         = 97
	msgRequest       = 98
	msgSuccess       = 99
	msgFailure       = 100
)

// newPeer shakes hands over c and signs in as anybody, or lets anybody in.
func newPeer(t testing.TB, c net.Conn, isGuest bool) (*peer, error) {
	c.SetDeadline(time.Now().Add(patience))
	if isGuest {
		p, err := sshwire.Client(c)
		if err == nil {
			err = p.SignInNone("u")
		}
		return &peer{p, t, c}, err
	}
	p, err := sshwire.Server(c, hostKey())
	if err == nil {
		err = p.LetIn()
	}
	return &peer{p, t, c}, err
}

func (p *peer) send(messages ...[]byte) error {
	p.conn.SetWriteDeadline(time.Now().Add(patience))
	return p.Send(messages...)
}

func (p *peer) receive() ([]byte, error) { return p.Receive() }

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
