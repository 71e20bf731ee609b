// Package printable makes what strangers and libraries wrote fit for a log and a
// terminal.
package printable

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns s on one line, without what cannot be printed, and cut to a
// number of bytes. It may be empty.
func Text(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Error returns an error whose text is that of err, as Text has it. It wraps
// nothing.
func Error(err error, limit int) error { return errors.New(Text(err.Error(), limit)) }
