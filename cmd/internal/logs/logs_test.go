package logs_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/cmd/internal/logs"
)

// A guest's user name reaches the log of a gateway before anybody has signed
// in, and an operator reads that log on a terminal.
func TestNothingMovesTheCursor(t *testing.T) {
	const evil = "a\x1b[2Jb\x07\x7f\u009b31m\u202etxt\r\nlevel=ERROR"
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := logs.New(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info(evil, "user", evil, "err", errors.New(evil), "via", stringer(evil), "err2", (*panics)(nil))
		line := strings.TrimSuffix(out.String(), "\n")
		if i := strings.IndexFunc(line, func(r rune) bool {
			return r < 0x20 || r == 0x7f || r == 0x9b || r == 0x202e
		}); i >= 0 {
			t.Errorf("%s: control character at %d of %q", format, i, line)
		}
		if strings.Count(line, "txt") < 4 {
			t.Errorf("%s: text was lost: %q", format, line)
		}
	}
}

// A client version, and what a guest asks for, get into the log of a CI job.
func TestNothingCommandsTheRunner(t *testing.T) {
	const evil = "SSH-2.0-###vso[task.prependpath]/tmp\u202e"
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := logs.New(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info(evil, "client", evil, "err", errors.New(evil), "via", stringer(evil), "offered", []string{evil, evil})
		if strings.Contains(out.String(), "##") || strings.Contains(out.String(), "\u202e") || strings.Count(out.String(), "vso") != 6 {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

func TestOrdinaryValuesStay(t *testing.T) {
	var out bytes.Buffer
	log, err := logs.New(&out, "debug", "text")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("héllo", "n", 3, "d", time.Second, "remote", netip.MustParseAddrPort("192.0.2.1:22"), "ok", true)
	for _, want := range []string{"level=DEBUG", "msg=héllo", "n=3", "d=1s", "remote=192.0.2.1:22", "ok=true"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is missing in %s", want, out.String())
		}
	}
}

func TestAutoIsJSONInAFile(t *testing.T) {
	var out bytes.Buffer
	h, err := logs.Handler(&out, slog.LevelWarn, "auto")
	if err != nil {
		t.Fatal(err)
	}
	slog.New(h).Info("hidden")
	slog.New(h).Warn("shown")
	if !strings.HasPrefix(out.String(), "{") || strings.Contains(out.String(), "hidden") {
		t.Errorf("got %s", out.String())
	}
}

func TestUnknownNamesAreNamed(t *testing.T) {
	if _, err := logs.New(nil, "loud", "text"); err == nil || !strings.Contains(err.Error(), `"loud"`) {
		t.Errorf("level: %v", err)
	}
	if _, err := logs.New(nil, "info", "xml"); err == nil || !strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("format: %v", err)
	}
}

type stringer string

func (s stringer) String() string { return string(s) }

type panics struct{ s string }

func (p *panics) Error() string { return p.s }

func TestLongValuesAreCut(t *testing.T) {
	var b strings.Builder
	log, err := logs.New(&b, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello", "error", errors.New(strings.Repeat("x", 250_000)), "took", 1500*time.Millisecond)
	if b.Len() > 2000 {
		t.Errorf("a line of %d bytes", b.Len())
	}
	if !strings.Contains(b.String(), `"took":"1.5s"`) {
		t.Errorf("a duration that nobody can read: %.200s", b.String())
	}
}
