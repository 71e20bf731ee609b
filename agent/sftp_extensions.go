package agent

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Packet types of draft-ietf-secsh-filexfer-02 that the extender looks at.
const (
	fxpVersion       = 2
	fxpOpen          = 3
	fxpClose         = 4
	fxpStatus        = 101
	fxpHandle        = 102
	fxpExtended      = 200
	fxpExtendedReply = 201
)

// Status codes of the same draft.
const (
	fxOK         = 0
	fxFailure    = 4
	fxBadMessage = 5
)

// maxSFTPHandles bounds what the extender remembers. Files opened beyond it cannot be synced.
const maxSFTPHandles = 4096

var errSFTPLength = errors.New("sftp: packet of a length that is not allowed")

// sftpExtender stands between a guest and the library's sftp server, and adds two of OpenSSH's extensions (its PROTOCOL file,
// §4.7 and §4.8) that the library lacks: limits@openssh.com, by which scp moves data in large pieces, and fsync@openssh.com.
// All other packets pass through it unchanged.
type sftpExtender struct {
	ch  io.ReadWriter
	dir string

	// Only Read uses these.
	pending []byte // of the current packet: what was read ahead of the library
	rest    int    // of the current packet: what is still on the channel

	mu      sync.Mutex        // guards the fields below, and writes to ch
	partial []byte            // a packet that the library has not finished
	opening map[uint32]string // names of files by the ID of the request that opens them
	open    map[string]string // names of open files by handle
}

func newSFTPExtender(ch io.ReadWriter, dir string) *sftpExtender {
	return &sftpExtender{ch: ch, dir: dir, opening: make(map[uint32]string), open: make(map[string]string)}
}

// Close keeps the library from closing the channel: the exit-status goes first.
func (*sftpExtender) Close() error { return nil }

// Read hands the guest's packets to the library, less those that are answered here.
func (x *sftpExtender) Read(p []byte) (int, error) {
	for len(x.pending) == 0 && x.rest == 0 {
		if err := x.next(); err != nil {
			return 0, err
		}
	}
	if len(x.pending) > 0 {
		n := copy(p, x.pending)
		x.pending = x.pending[n:]
		return n, nil
	}
	n, err := x.ch.Read(p[:min(len(p), x.rest)])
	x.rest -= n
	return n, err
}

// next reads the beginning of a packet, and all of it when it may concern the extender.
func (x *sftpExtender) next() error {
	head := make([]byte, 5, 512) // length and type
	if _, err := io.ReadFull(x.ch, head); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head)
	if length == 0 || length > sftpPacket {
		return errSFTPLength
	}
	rest := int(length) - 1
	switch head[4] {
	case fxpOpen, fxpClose, fxpExtended:
	default:
		x.pending, x.rest = head, rest
		return nil
	}
	packet := append(head, make([]byte, rest)...)
	if _, err := io.ReadFull(x.ch, packet[5:]); err != nil {
		return err
	}
	if !x.request(packet[4], packet[5:]) {
		x.pending = packet
	}
	return nil
}

// request looks at a packet of the guest and tells whether it was answered here.
func (x *sftpExtender) request(kind byte, body []byte) bool {
	var r struct {
		ID   uint32
		Name string
		Rest []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(body, &r) != nil {
		return false // for the library to refuse
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case kind == fxpOpen && len(x.opening)+len(x.open) < maxSFTPHandles:
		x.opening[r.ID] = r.Name
	case kind == fxpClose:
		delete(x.open, r.Name)
	case kind == fxpExtended && r.Name == "limits@openssh.com":
		x.reply(fxpExtendedReply, ssh.Marshal(struct {
			ID                         uint32
			Packet, Read, Write, Files uint64
		}{r.ID, sftpPacket, sftpData, sftpData, 0}))
		return true
	case kind == fxpExtended && r.Name == "fsync@openssh.com":
		x.reply(fxpStatus, ssh.Marshal(struct {
			ID, Code      uint32
			Message, Lang string
		}{ID: r.ID, Code: x.sync(r.Rest)}))
		return true
	}
	return false
}

// sync writes a file to its disk and returns a status. The library keeps its descriptors to itself; another one of the same file
// does as well.
func (x *sftpExtender) sync(body []byte) uint32 {
	var r struct{ Handle string }
	if ssh.Unmarshal(body, &r) != nil {
		return fxBadMessage
	}
	name, ok := x.open[r.Handle]
	if !ok {
		return fxFailure
	}
	if !path.IsAbs(name) {
		name = path.Join(x.dir, name)
	}
	if runtime.GOOS == "windows" {
		name = strings.TrimPrefix(name, "/") // of /C:/dir/file
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fxFailure
	}
	defer f.Close()
	if f.Sync() != nil {
		return fxFailure
	}
	return fxOK
}

// reply sends a packet of the extender's own. Packets of the library are written whole, so it cannot cut into one.
func (x *sftpExtender) reply(kind byte, body []byte) {
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(1+len(body))), kind)
	x.ch.Write(append(packet, body...))
}

// Write sends the library's packets to the guest, each at once: the library writes the head and the data of one apart.
func (x *sftpExtender) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.partial = append(x.partial, p...)
	for len(x.partial) >= 5 {
		end := 4 + int(binary.BigEndian.Uint32(x.partial))
		if end < 5 {
			return 0, errSFTPLength
		}
		if len(x.partial) < end {
			break
		}
		if _, err := x.ch.Write(x.response(x.partial[:end])); err != nil {
			return 0, err
		}
		x.partial = append(x.partial[:0], x.partial[end:]...)
	}
	return len(p), nil
}

// response looks at a packet of the library and returns what to send in its place.
func (x *sftpExtender) response(packet []byte) []byte {
	switch packet[4] {
	case fxpVersion:
		return offerExtensions(packet)
	case fxpHandle, fxpStatus:
		var r struct {
			ID     uint32
			Handle string
			Rest   []byte `ssh:"rest"`
		}
		if packet[4] == fxpHandle && ssh.Unmarshal(packet[5:], &r) == nil {
			if name, ok := x.opening[r.ID]; ok {
				x.open[r.Handle] = name
			}
		}
		if len(packet) >= 9 {
			delete(x.opening, binary.BigEndian.Uint32(packet[5:]))
		}
	}
	return packet
}

// offerExtensions adds names and versions of the extender's extensions to the server's first packet.
func offerExtensions(version []byte) []byte {
	extended := append([]byte(nil), version...)
	for _, name := range []string{"limits@openssh.com", "fsync@openssh.com"} {
		extended = append(extended, ssh.Marshal(struct{ Name, Version string }{name, "1"})...)
	}
	binary.BigEndian.PutUint32(extended, uint32(len(extended)-4))
	return extended
}
