package hostile

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// websocketClient is one that offers compression, and then sends frames of its own
// making.
func (w *world) websocketClient(path string) *tls.Conn {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots, NextProtos: []string{"http/1.1"}})
	mustDo(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Protocol: stagedoor-tunnel/1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", path, w.https)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	mustDo(w.t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		w.t.Fatalf("%s: %s", path, resp.Status)
	}
	if ext := resp.Header.Get("Sec-WebSocket-Extensions"); ext != "" {
		w.t.Errorf("%s: the gateway agrees on %q", path, ext)
	}
	return c
}

// Bits of a frame's first byte (RFC 6455 section 5.2).
const (
	fin        = 0x80
	compressed = 0x40 // RSV1, by RFC 7692
	binaryData = 2
	ping       = 9
)

// frame is a masked frame that says it is n bytes long.
func frame(first byte, n uint64, payload []byte) []byte {
	b := []byte{first, 0x80 | 127}
	b = binary.BigEndian.AppendUint64(b, n)
	b = append(b, 0, 0, 0, 0) // a mask that changes nothing
	return append(b, payload...)
}

// TestWebSocketBombs: a frame of a gigabyte, one that claims to be larger than there
// are bytes, compression that was not agreed on, and frames without end cost the
// gateway nothing but the connection.
func TestWebSocketBombs(t *testing.T) {
	w := newWorld(t, "limits:", "  handshake_timeout: 3s")
	w.startHost("task-b", w.bob, echo)
	var bomb bytes.Buffer
	z, _ := flate.NewWriter(&bomb, flate.BestCompression)
	for range 64 {
		z.Write(make([]byte, 1<<20))
	}
	z.Flush()
	zeros := make([]byte, 1<<20)
	for name, attack := range map[string]func(c *tls.Conn) error{
		"a frame of 1 GB": func(c *tls.Conn) error {
			_, err := c.Write(frame(fin|binaryData, 1<<30, []byte("SSH-2.0-x\r\n")))
			for i := 0; i < 1024 && err == nil; i++ {
				_, err = c.Write(zeros)
			}
			return err
		},
		"a line of 1 GB": func(c *tls.Conn) error {
			_, err := c.Write(frame(fin|binaryData, 1<<30, nil))
			for i := 0; i < 1024 && err == nil; i++ {
				_, err = c.Write(bytes.Repeat([]byte{'A'}, 1<<20))
			}
			return err
		},
		"an impossible length": func(c *tls.Conn) error { return until(c, frame(fin|binaryData, 1<<63, zeros[:100])) },
		"a compressed bomb": func(c *tls.Conn) error {
			return until(c, frame(fin|compressed|binaryData, uint64(bomb.Len()), bomb.Bytes()))
		},
		"empty fragments":   func(c *tls.Conn) error { return until(c, frame(binaryData, 0, nil), frame(0, 0, nil)) },
		"pings":             func(c *tls.Conn) error { return until(c, []byte{fin | ping, 0x80 | 4, 0, 0, 0, 0, 1, 2, 3, 4}) },
		"a long ping":       func(c *tls.Conn) error { return until(c, frame(fin|ping, 1<<20, zeros)) },
		"no mask":           func(c *tls.Conn) error { return until(c, []byte{fin | binaryData, 4, 1, 2, 3, 4}) },
		"an unknown opcode": func(c *tls.Conn) error { return until(c, frame(fin|7, 4, zeros[:4])) },
		"nothing":           func(c *tls.Conn) error { return until(c) },
	} {
		for _, path := range []string{"/ssh", "/tunnel"} {
			t.Run(strings.ReplaceAll(name+path, "/", " at "), func(t *testing.T) {
				t.Parallel()
				c := w.websocketClient(path)
				ended := make(chan bool, 1)
				go func() { ended <- drain(c) }()
				if err := attack(c); err == nil && !<-ended {
					t.Error("the gateway took it all")
				}
			})
		}
	}
	t.Cleanup(func() {
		if _, peak := w.resident(); peak > 400<<20 {
			t.Errorf("the gateway held %d MiB", peak>>20)
		}
		w.intact()
	})
}

// until sends the last of the frames over and over, for as long as it is taken.
func until(c *tls.Conn, frames ...[]byte) error {
	for i, f := range frames {
		if _, err := c.Write(f); err != nil {
			return err
		}
		for i == len(frames)-1 {
			if _, err := c.Write(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestHTTPBombs: headers and bodies without end are cut off.
func TestHTTPBombs(t *testing.T) {
	w := newWorld(t, "limits:", "  handshake_timeout: 3s")
	w.startHost("task-b", w.bob, echo)
	for name, text := range map[string]string{
		"a header":             "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20),
		"a path":               "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"many headers":         "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: x\r\n", 100000),
		"a body of an ocean":   "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n" + strings.Repeat("x", 1<<20),
		"chunks":               "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 100000),
		"two lengths":          "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"requests in a row":    strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 20000),
		"HTTP/2 without a say": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := tls.Dial("tcp", w.https, &tls.Config{RootCAs: w.roots, NextProtos: []string{"http/1.1"}})
			mustDo(t, err)
			defer c.Close()
			go func() {
				c.Write([]byte(text))
			}()
			if !drain(c) {
				t.Error("the connection is still open")
			}
		})
	}
	t.Cleanup(w.intact)
}
