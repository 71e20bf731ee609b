package auth

import (
	"strings"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// What strangers wrote ends up in logs and on terminals: in names by way of a
// key's comment, in errors because the libraries quote what they could not
// read. Both are kept printable, on one line, and short.
const (
	maxIdentityName = 128
	maxErrorText    = 400
)

// identityName makes a name of what somebody wrote behind a key.
func identityName(s string) string { return strings.TrimSpace(printable.Text(s, maxIdentityName)) }

// plain makes an error whose text is printable. It wraps nothing: no caller
// tells these errors apart.
func plain(err error) error { return printable.Error(err, maxErrorText) }
