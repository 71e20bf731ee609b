package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read returns the lines of a stream.
func read(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func closed(t *testing.T, s *Stream) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what has no event.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("still waiting")
		}
	}
}

func TestStream(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	before := time.Now().Add(-time.Second)
	for range 2 { // the second adds to what the first wrote
		s, err := Open(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Record(GuestSignedIn{Who: Who{Task: "task-1", Identity: "alice \x1b[2J\nevil", Conn: "c1"}, Method: "publickey"})
		s.Record(GatewayEnded{})
		closed(t, s)
		if written, lost := s.Written(), s.Lost(); written != 2 || lost != 0 {
			t.Errorf("%d written, %d lost", written, lost)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	text := readFile(t, name)
	if strings.ContainsRune(text, '\x1b') {
		t.Errorf("a terminal escape came through: %q", text)
	}
	lines := read(t, text)
	if len(lines) != 4 {
		t.Fatalf("%d lines: %s", len(lines), text)
	}
	got := lines[2]
	if got["v"] != 1.0 || got["event"] != "guest.signed_in" || got["task"] != "task-1" || got["identity"] != "alice \x1b[2J\nevil" || got["method"] != "publickey" {
		t.Errorf("got %v", got)
	}
	if at, err := time.Parse(time.RFC3339Nano, got["time"].(string)); err != nil || at.Before(before) || at.Location() != time.UTC {
		t.Errorf("time %v: %v", got["time"], err)
	}
	if got := lines[3]; len(got) != 3 || got["event"] != "gateway.ended" {
		t.Errorf("an event without fields: %v", got)
	}
	if !strings.HasPrefix(text, `{"v":1,"time":"`) {
		t.Errorf("the version does not come first: %.40s", text)
	}
}

func TestNilStream(t *testing.T) {
	var s *Stream
	s.Record(GatewayStarted{})
	s.Reopen()
	if s.Written() != 0 || s.Lost() != 0 || s.Close() != nil {
		t.Error("the nil stream does something")
	}
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none", "audit"), nil); err == nil {
		t.Error("a file in no directory was opened")
	}
}

// TestReopen moves the file away, as logrotate does.
func TestReopen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	s, err := Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		s.Record(Lost{Events: uint64(n)})
	}
	old := name + ".1"
	if err := os.Rename(name, old); err != nil {
		t.Fatal(err)
	}
	s.Reopen()
	eventually(t, func() bool { _, err := os.Stat(name); return err == nil })
	s.Record(GatewayEnded{})
	closed(t, s)
	if lines := read(t, readFile(t, name)); lines[len(lines)-1]["event"] != "gateway.ended" {
		t.Errorf("after the move: %v", lines)
	}
	if all := len(read(t, readFile(t, old))) + len(read(t, readFile(t, name))); all != 21 {
		t.Errorf("%d of 21 events are there", all)
	}
}

// disk fails and blocks as a test tells it to.
type disk struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	fail error
	take int           // bytes that are written before it fails
	hold chan struct{} // nil: none
	held chan struct{} // a write begins to wait
}

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		d.held <- struct{}{}
		<-hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		n, _ := d.buf.Write(p[:min(d.take, len(p))])
		return n, d.fail
	}
	return d.buf.Write(p)
}

func (d *disk) Close() error { return nil }

func (d *disk) set(fail error, take int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.take = fail, take
}

func (d *disk) open() (io.WriteCloser, error) { return d, nil }

// TestDiskFull loses what cannot be written, says so, and goes on with a line of
// its own.
func TestDiskFull(t *testing.T) {
	d := &disk{}
	r, w := io.Pipe()
	s, err := newStream(d.open, slog.New(slog.NewTextHandler(w, nil)))
	if err != nil {
		t.Fatal(err)
	}
	log := bufio.NewScanner(r)
	d.set(errors.New("no space left on device"), 7)
	s.Record(GuestLeft{Reason: "gone"})
	if !log.Scan() || !strings.Contains(log.Text(), "no space left") {
		t.Fatalf("the log says %q", log.Text())
	}
	d.set(nil, 0)
	s.Record(GatewayEnded{})
	if !log.Scan() || !strings.Contains(log.Text(), "lost_in_all=1") {
		t.Fatalf("the log says %q", log.Text())
	}
	closed(t, s)
	if written, lost := s.Written(), s.Lost(); written != 1 || lost != 1 {
		t.Errorf("%d written, %d lost", written, lost)
	}
	torn, whole, _ := strings.Cut(d.buf.String(), "\n")
	if len(torn) != 7 {
		t.Errorf("the line that was cut: %q", torn)
	}
	lines := read(t, whole)
	if len(lines) != 2 || lines[0]["event"] != "audit.lost" || lines[0]["events"] != 1.0 || lines[1]["event"] != "gateway.ended" {
		t.Errorf("then: %v", lines)
	}
}

// TestStuckDisk keeps nobody waiting who records an event.
func TestStuckDisk(t *testing.T) {
	d := &disk{hold: make(chan struct{}), held: make(chan struct{}, 1)}
	s, err := newStream(d.open, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Record(GatewayStarted{})
	<-d.held // the writer is stuck, and nothing else is queued
	for range queued + 10 {
		s.Record(GuestLeft{})
	}
	if lost := s.Lost(); lost != 10 {
		t.Errorf("%d were lost, want 10", lost)
	}
	d.mu.Lock()
	hold := d.hold
	d.hold = nil
	d.mu.Unlock()
	close(hold)
	closed(t, s)
	if written := s.Written(); written != queued+1 {
		t.Errorf("%d were written, want %d", written, queued+1)
	}
	lines := read(t, d.buf.String())
	if lines[1]["event"] != "audit.lost" || lines[1]["events"] != 10.0 {
		t.Errorf("the stream says %v", lines[1])
	}
	s.Record(GuestLeft{})
	if lost := s.Lost(); lost != 11 {
		t.Errorf("after Close: %d lost, want 11", lost)
	}
}
