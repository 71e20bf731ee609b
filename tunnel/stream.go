package tunnel

import (
	"net"
	"time"
)

// A Stream is one flow in a tunnel. It is a net.Conn without half-close.
type Stream struct{}

var _ net.Conn = (*Stream)(nil)

// Header returns what the gateway said of the stream.
func (s *Stream) Header() StreamHeader { panic("todo") }

// Welcome returns the Welcome of the stream's tunnel.
func (s *Stream) Welcome() Welcome { panic("todo") }

func (s *Stream) Read(p []byte) (int, error)  { panic("todo") }
func (s *Stream) Write(p []byte) (int, error) { panic("todo") }

// Close ends the stream in both directions.
func (s *Stream) Close() error { panic("todo") }

func (s *Stream) LocalAddr() net.Addr                { panic("todo") }
func (s *Stream) RemoteAddr() net.Addr               { panic("todo") }
func (s *Stream) SetDeadline(t time.Time) error      { panic("todo") }
func (s *Stream) SetReadDeadline(t time.Time) error  { panic("todo") }
func (s *Stream) SetWriteDeadline(t time.Time) error { panic("todo") }
