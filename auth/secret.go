package auth

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// A private key given in the place of a public one is an easy slip, and errors
// end up in logs: what stands in a file of keys is quoted only where it can be
// no part of a secret.

// ErrPrivateKey is about a file that was to hold public keys. [PublicHalf] says
// what to give instead.
var ErrPrivateKey = errors.New("this is a private key")

// privateHeaders begin the lines by which files with private keys are known:
// OpenSSH's and PEM's, and PuTTY's.
var privateHeaders = []string{"-----BEGIN ", "PuTTY-User-Key-File-"}

// IsPrivateKey reports whether data is, or has in it, what programs write a
// private key as. A public key in PEM is none.
func IsPrivateKey(data []byte) bool {
	for line := range bytes.Lines(data) {
		text := string(bytes.TrimSpace(line[:min(len(line), 128)]))
		for _, header := range privateHeaders {
			pem := header[0] == '-'
			if strings.HasPrefix(text, header) && (!pem || strings.Contains(text, "PRIVATE KEY")) {
				return true
			}
		}
	}
	return false
}

// PublicHalf says where the public half of the private key in file is: in a file
// beside it, or what to type.
func PublicHalf(file string) string {
	if _, err := os.Stat(file + ".pub"); err == nil {
		return file + ".pub"
	}
	return fmt.Sprintf("which ssh-keygen -y -f %s prints", file)
}

// quoteWord quotes a word that is no option, for whoever mistyped it, and returns
// nothing of one that could be part of a secret.
func quoteWord(s string) string {
	if !isWord(strings.TrimSuffix(s, "=")) {
		return "(which is not shown: it could be secret)"
	}
	return fmt.Sprintf("%q", s)
}

// isWord tells names such as no-X11-forwarding from base64 and the like, which
// mixes cases, or letters and digits.
func isWord(s string) bool {
	if len(s) > 32 {
		return false
	}
	for part := range strings.SplitSeq(s, "-") {
		letters := strings.TrimRight(part, "0123456789")
		small := strings.Trim(letters, "abcdefghijklmnopqrstuvwxyz") == ""
		if len(part)-len(letters) > 2 || !small && letters != "X" { // X11
			return false
		}
	}
	return true
}
