// Package logs makes the logger that both commands share: text for a person
// at a terminal, JSON for everything else, and never a control character of a
// stranger's in either.
//
//	log, err := logs.New(os.Stderr, "info", "auto")
package logs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// Formats are the values that New accepts as format.
var Formats = []string{"auto", "text", "json"}

// Levels are the values that New and ParseLevel accept as level.
var Levels = []string{"debug", "info", "warn", "error"}

// New returns a logger that writes records of level and above to w. The
// format "auto" is text when w is a terminal, and JSON otherwise. An unknown
// level or format is an error that names the known ones.
func New(w io.Writer, level, format string) (*slog.Logger, error) {
	l, err := ParseLevel(level)
	if err != nil {
		return nil, err
	}
	h, err := Handler(w, l, format)
	if err != nil {
		return nil, err
	}
	return slog.New(h), nil
}

// Handler is New for a level that changes while the program runs: pass a
// *slog.LevelVar.
func Handler(w io.Writer, level slog.Leveler, format string) (slog.Handler, error) {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: escape}
	switch {
	case format == "json", format == "auto" && !isTerminal(w):
		return slog.NewJSONHandler(w, o), nil
	case format == "text", format == "auto":
		return slog.NewTextHandler(w, o), nil
	}
	return nil, fmt.Errorf("unknown log format %q; use one of %s", format, strings.Join(Formats, ", "))
}

// ParseLevel returns the level of one of the names in Levels.
func ParseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("unknown log level %q; use one of %s", s, strings.Join(Levels, ", "))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// escape makes what strangers chose (user names, client versions, the errors
// that quote them) safe to show. Both handlers escape the ASCII controls by
// themselves. JSON lets DEL, the C1 controls and the characters that reverse
// text through; a terminal that shows a log obeys them.
func escape(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration: // JSON would show a number of nanoseconds
		a.Value = slog.StringValue(a.Value.Duration().String())
		return a
	case slog.KindString, slog.KindAny:
	default:
		return a
	}
	if list, ok := a.Value.Any().([]string); ok {
		list = slices.Clone(list)
		for i := range list {
			list[i] = Escape(list[i])
		}
		a.Value = slog.AnyValue(list)
		return a
	}
	if s, ok := text(a.Value.Any()); ok {
		if len(s) > maxValue && a.Key != "stack" {
			s = s[:maxValue] + "…"
		}
		a.Value = slog.StringValue(Escape(s))
	}
	return a
}

// maxValue bounds a value in bytes: a stranger's client may send a reason of
// 250 KB for hanging up, which would be a line of the log.
const maxValue = 1024

// text is what a handler would show for v. A value whose method panics (a nil
// pointer in an interface) is left to the handler, which says so.
func text(v any) (s string, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	switch v := v.(type) {
	case string:
		return v, true
	case error:
		return v.Error(), true
	case fmt.Stringer:
		return v.String(), true
	}
	return "", false
}

// Escape returns s with every character that could move a cursor or hide
// text, other than the ASCII controls, written out as in a Go string. So is one of
// two hashes: the log of an agent is that of a CI job, in which the runners of Azure,
// GitHub and TeamCity take ##[…] and ##vso[…] for commands, anywhere in a line.
func Escape(s string) string {
	s = strings.ReplaceAll(s, "##", `#\x23`)
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hidden(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
