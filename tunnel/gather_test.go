package tunnel

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/yamux"
)

// A recorder keeps each Write apart.
type recorder struct {
	net.Conn
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return r.Conn.Write(p)
}

func TestHeaderAndBodyAreOneWrite(t *testing.T) {
	a, b := net.Pipe()
	rec := &recorder{Conn: a}
	l := newLink(rec, func(frameHeader) error { return nil }, func(error) {})
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive = false
	cfg.LogOutput = io.Discard
	client, err := yamux.Client(l, cfg)
	if err != nil {
		t.Fatal(err)
	}
	server, err := yamux.Server(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	received := run(func() []byte {
		s, err := server.Accept()
		if err != nil {
			return nil
		}
		data, _ := io.ReadAll(s)
		return data
	})
	s, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	want := randomData(1000)
	for i := range 10 {
		if _, err := s.Write(want[i*100 : i*100+100]); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if got := await(t, "the data", received); !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived", len(got))
	}
	client.Close()
	whole := 0
	for _, w := range rec.writes {
		if h := parseHeader(w); h.kind == kindData {
			if whole++; len(w) != headerSize+100 || h.length != 100 {
				t.Errorf("a write of %d bytes for a body of %d", len(w), h.length)
			}
		}
	}
	if whole != 10 {
		t.Errorf("%d data frames", whole)
	}
}
