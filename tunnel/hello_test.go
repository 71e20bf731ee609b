package tunnel

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func fixedKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func validHello(key ed25519.PrivateKey) Hello {
	return Hello{Version: 1, Task: "task-1", Token: "token", AgentKey: key.Public().(ed25519.PublicKey)}
}

func TestHelloIsWhatWasSigned(t *testing.T) {
	key := fixedKey()
	h := validHello(key)
	h.Labels = map[string]string{"a": "b"}
	b, err := h.appendSigned(nil, key, []byte("binding"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readHello(iotest.OneByteReader(bytes.NewReader(b)), []byte("binding"))
	if err != nil {
		t.Fatal(err)
	}
	h.Signature = got.Signature
	if !reflect.DeepEqual(got, h) {
		t.Errorf("got %+v, want %+v", got, h)
	}
	if _, err := readHello(bytes.NewReader(b), []byte("bindinG")); err == nil {
		t.Error("taken with another binding")
	}
	for i := 4; i < len(b); i++ { // behind the length
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := readHello(bytes.NewReader(bad), []byte("binding")); err == nil {
			t.Errorf("taken with byte %d changed: %q", i, bad)
		}
	}
	for i := range b {
		if _, err := readHello(bytes.NewReader(b[:i]), []byte("binding")); err == nil {
			t.Errorf("taken though cut at %d", i)
		}
	}
}

// The wire format is fixed: this is what an agent of version 1 sends.
func TestHelloOnTheWire(t *testing.T) {
	key := fixedKey()
	h := validHello(key)
	b, err := h.appendSigned(nil, key, []byte("tls-exporter:x"))
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"version":1,"task":"task-1","token":"token","agent_key":"6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw="}`
	if string(b[4:len(b)-64]) != text || binary.BigEndian.Uint32(b) != uint32(len(text)) {
		t.Errorf("the frame is %q", b[:len(b)-64])
	}
	over := "stagedoor tunnel hello 1\x00\x00\x00\x00\x0etls-exporter:x" + text
	if !ed25519.Verify(h.AgentKey, []byte(over), b[len(b)-64:]) {
		t.Error("the signature is not over what the specification says")
	}
}

func TestHelloLimits(t *testing.T) {
	key := fixedKey()
	many := make(map[string]string)
	for i := range 33 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for name, change := range map[string]func(*Hello){
		"no task":            func(h *Hello) { h.Task, h.Token, h.Renewal = "", "", "renewal" },
		"a long task":        func(h *Hello) { h.Task = strings.Repeat("x", 256) },
		"an unprintable one": func(h *Hello) { h.Task = "a\x1b[2J" },
		"no credential":      func(h *Hello) { h.Token = "" },
		"two credentials":    func(h *Hello) { h.Renewal = "x" },
		"no key":             func(h *Hello) { h.AgentKey = nil },
		"a short key":        func(h *Hello) { h.AgentKey = h.AgentKey[1:] },
		"a long host key":    func(h *Hello) { h.HostKey = make([]byte, 16<<10+1) },
		"many labels":        func(h *Hello) { h.Labels = many },
		"an empty label":     func(h *Hello) { h.Labels = map[string]string{"": "x"} },
		"a long label":       func(h *Hello) { h.Labels = map[string]string{"x": strings.Repeat("v", 257)} },
		"a label's newline":  func(h *Hello) { h.Labels = map[string]string{"x": "\n"} },
	} {
		h := validHello(key)
		change(&h)
		b, err := h.appendSigned(nil, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readHello(bytes.NewReader(b), nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestReadReply(t *testing.T) {
	frame := func(v any) io.Reader {
		b, err := appendFrame(nil, v, limitReply)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(b)
	}
	if _, err := readReply(frame(reply{})); err == nil {
		t.Error("an empty answer was taken")
	}
	long := &Refusal{Code: "c\x00de", Message: strings.Repeat("é\x1b", 2000), RetryAfter: -time.Hour}
	_, err := readReply(frame(reply{Refusal: long}))
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.Code != "c de" || len(r.Message) > 1026 || !printable(r.Message) || r.RetryAfter != 0 {
		t.Errorf("got %v", err)
	}
	for want, r := range map[string]*Refusal{
		"gateway refused the tunnel: limit":           {Code: CodeLimit},
		"gateway refused the tunnel: too old (limit)": {Code: CodeLimit, Message: "too old"},
	} {
		if r.Error() != want {
			t.Errorf("%q, want %q", r.Error(), want)
		}
	}
}

// A reader takes nothing beyond the frame, and has no memory for one too long.
func TestReadFrameStopsAtItsEnd(t *testing.T) {
	b, err := appendFrame(nil, Message{Type: TypePing}, limitMessage)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(b, "rest"...))
	var m Message
	if _, err := readFrame(r, &m, limitMessage); err != nil || m.Type != TypePing {
		t.Errorf("%+v, %v", m, err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("left is %q", rest)
	}
	huge := []byte{255, 255, 255, 255, '{'}
	if n := testing.AllocsPerRun(10, func() { readFrame(bytes.NewReader(huge), &m, limitMessage) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
	if _, err := appendFrame(nil, make([]byte, 100), 100); err == nil {
		t.Error("wrote a frame that nobody reads")
	}
	if _, err := readFrame(strings.NewReader(""), &m, 1); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if _, err := readFrame(bytes.NewReader(b[:7]), &m, limitMessage); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("amid a frame: %v", err)
	}
}

func FuzzHello(f *testing.F) {
	key := fixedKey()
	h := validHello(key)
	b, err := h.appendSigned(nil, key, []byte("b"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0, 0, 0, 13, '{', '"', 'v', 'e', 'r', 's', 'i', 'o', 'n', '"', ':', '2', '}'})
	f.Add([]byte{0, 0, 0, 4, 'n', 'u', 'l', 'l'})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b), []byte("b"))
		if err != nil {
			return
		}
		if err := h.check(); err != nil {
			t.Errorf("taken: %v", err)
		}
		raw := b[4 : 4+binary.BigEndian.Uint32(b)]
		if !ed25519.Verify(h.AgentKey, signed([]byte("b"), raw), h.Signature) {
			t.Error("taken without its signature")
		}
	})
}

func FuzzStreamHeader(f *testing.F) {
	for _, h := range []StreamHeader{testHeader, {Mode: ModeEndToEnd}, {Mode: ModeEndToEnd, Remote: "[2001:db8::1%eth0]:22"}} {
		b, err := appendFrame(nil, h, limitHeader)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readStreamHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		if h.Mode != ModeSpliced && h.Mode != ModeEndToEnd || len(h.Certificate) > 16<<10 {
			t.Errorf("taken: %+v", h)
		}
		if a := guestAddr(h); (a == nil) != (h.Remote == "") {
			t.Errorf("address of %q is %v", h.Remote, a)
		}
		again, err := appendFrame(nil, h, limitHeader)
		if err != nil {
			t.Errorf("taken, but cannot be sent: %v", err)
		}
		if h2, err := readStreamHeader(bytes.NewReader(again)); err != nil || !reflect.DeepEqual(h, h2) {
			t.Errorf("%+v became %+v, %v", h, h2, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range []Message{{Type: TypePing}, {Type: TypeReplaced, Reason: "x"}, {Type: TypeDeadline, Deadline: time.Unix(1e9, 0)}} {
		b, err := appendFrame(nil, m, limitMessage)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 2, '{', '}', 0, 0, 0, 2, '[', ']'})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &session{err: ErrClosed} // ended, so that failing it does nothing
		var handled []Message
		c := newControl(s, struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}, func(m Message) { handled = append(handled, m) })
		c.read()
		n := 0
		for m := range c.Messages() {
			n++
			if !m.deliverable() || !printable(m.Reason) || !printable(m.State) {
				t.Errorf("delivered %+v", m)
			}
		}
		if n != min(len(handled), messagesKept) {
			t.Errorf("%d of %d were delivered", n, len(handled))
		}
	})
}

// FuzzInspector checks that however the bytes are cut, the same headers are seen.
func FuzzInspector(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 'a', 'b', 0, 1, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0}, uint8(5))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		see := func(step int) (seen []frameHeader) {
			i := inspector{frame: func(h frameHeader) error { seen = append(seen, h); return nil }}
			for rest := b; len(rest) > 0; {
				n := min(step, len(rest))
				if err := i.scan(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			return seen
		}
		if whole, cut := see(len(b)), see(int(cut)+1); !reflect.DeepEqual(whole, cut) {
			t.Errorf("whole: %v, cut: %v", whole, cut)
		}
	})
}

func TestStateKindString(t *testing.T) {
	if s := StateDraining.String(); s != "draining" {
		t.Error(s)
	}
	if s := StateKind(99).String(); s != "state 99" {
		t.Error(s)
	}
	var m Message
	if err := json.Unmarshal([]byte(`{"type":"ping","future":1}`), &m); err != nil || m.Type != TypePing {
		t.Error(m, err)
	}
}
