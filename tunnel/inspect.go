package tunnel

import (
	"encoding/binary"
	"errors"
)

// yamux's frame header, see its spec.md: version, type, flags, stream,
// length. Only data frames have a body.
const (
	headerSize = 12

	kindData = 0
	kindPing = 2

	flagSYN = 1
	flagFIN = 4
	flagRST = 8
)

type frameHeader struct {
	kind   byte
	flags  uint16
	stream uint32
	length uint32
}

// parseHeader parses b, of headerSize bytes.
func parseHeader(b []byte) frameHeader {
	return frameHeader{
		kind:   b[1],
		flags:  binary.BigEndian.Uint16(b[2:]),
		stream: binary.BigEndian.Uint32(b[4:]),
		length: binary.BigEndian.Uint32(b[8:]),
	}
}

// errProtocol ends a tunnel whose other side sends what yamux itself refuses.
var errProtocol = errors.New("the other side broke the multiplexing protocol")

// An inspector follows yamux's framing in the bytes that arrive and calls
// frame for each header, before yamux has seen it. yamux tells its user
// neither that a stream is being opened nor that the other side has closed
// one, and it answers each ping of a flood with a goroutine of its own.
type inspector struct {
	frame func(frameHeader) error

	header [headerSize]byte
	have   int   // bytes of header
	body   int64 // bytes of the present body yet to come
}

// scan looks at the next bytes and returns the first error of frame.
func (i *inspector) scan(p []byte) error {
	for len(p) > 0 {
		if i.body > 0 {
			n := min(i.body, int64(len(p)))
			i.body -= n
			p = p[n:]
			continue
		}
		n := copy(i.header[i.have:], p)
		p = p[n:]
		if i.have += n; i.have < headerSize {
			return nil
		}
		i.have = 0
		h := parseHeader(i.header[:])
		if h.kind == kindData {
			i.body = int64(h.length)
		}
		if err := i.frame(h); err != nil {
			return err
		}
	}
	return nil
}
