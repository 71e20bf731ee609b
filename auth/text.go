package auth

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What strangers wrote ends up in logs and on terminals: in names by way of a
// key's comment, in errors because the libraries quote what they could not
// read. Both are kept printable, on one line, and short.
const (
	maxIdentityName = 128
	maxErrorText    = 400
)

// identityName makes a name of what somebody wrote behind a key.
func identityName(s string) string { return strings.TrimSpace(printable(s, maxIdentityName)) }

// plain makes an error whose text is printable. It wraps nothing: no caller
// tells these errors apart.
func plain(err error) error { return errors.New(printable(err.Error(), maxErrorText)) }

// printable drops what cannot be printed, and what is beyond limit bytes.
func printable(s string, limit int) string {
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
