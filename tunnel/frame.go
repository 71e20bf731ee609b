package tunnel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Limits of the JSON in a frame, in bytes. A token that carries many keys is
// the largest thing that is ever sent.
const (
	limitHello   = 64 << 10
	limitReply   = 64 << 10
	limitHeader  = 32 << 10
	limitMessage = 16 << 10
)

// appendFrame appends v to buf as a frame: its length as four bytes, big
// endian, then JSON of at most limit bytes.
func appendFrame(buf []byte, v any, limit int) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > limit {
		return nil, fmt.Errorf("encode frame: %d bytes, %d are allowed", len(body), limit)
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(body)))
	return append(buf, body...), nil
}

// writeFrame writes v as one frame by one Write.
func writeFrame(w io.Writer, v any, limit int) error {
	buf, err := appendFrame(nil, v, limit)
	if err != nil {
		return err
	}
	_, err = w.Write(buf)
	return err
}

// readFrame reads one frame into v and returns the JSON as it was sent. It
// reads no byte beyond the frame, and allocates nothing for one too long.
func readFrame(r io.Reader, v any, limit int) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("read frame: %d bytes, %d are allowed", n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("read frame: %w", noEOF(err))
	}
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("decode frame: %w", err)
	}
	return body, nil
}

// noEOF makes an end amid something an error that nobody takes for a clean end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
