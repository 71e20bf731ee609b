package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// OneTimePassword is the method of a guest who gave the password of a task, and
// the name of its identity: nobody knows more of who that is.
const OneTimePassword = "one-time-password"

// maxPassword bounds what is hashed of what a stranger typed, in bytes.
const maxPassword = 128

// NewOneTimePassword makes a password of 128 bits, in groups that a person can
// type.
func NewOneTimePassword() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[:]))
	var groups []string
	for len(text) > 0 {
		n := min(len(text), 6)
		groups, text = append(groups, text[:n]), text[n:]
	}
	return strings.Join(groups, "-")
}

// HashOneTimePassword is what a gateway is told of a password. Case, hyphens and
// blanks do not count, as people type it. What cannot be a password has a hash
// that is none of any.
func HashOneTimePassword(password string) [sha256.Size]byte {
	password = password[:min(len(password), maxPassword)]
	plain := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, strings.ToLower(password))
	return sha256.Sum256([]byte("stagedoor one-time password\x00" + plain))
}

// OneTimePasswords is the [Authorizer] that admits who has given the task's
// one-time password, if the task's grant wants that there is one. Whether the
// password was right, and not used before, is for the caller to find out.
type OneTimePasswords struct {
	Now func() time.Time // nil: time.Now
}

// Authorize admits an identity whose method is [OneTimePassword], with what the
// grant permits.
func (a OneTimePasswords) Authorize(_ context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	g := task.Grant
	switch {
	case id.Method != OneTimePassword:
		return nil, denied("no one-time password was given")
	case g == nil || !g.OneTimePassword:
		return nil, denied("the grant wants no one-time password")
	case !g.Until.IsZero() && !clock(a.Now).Before(g.Until):
		return nil, denied("grant ended at %s", g.Until.UTC().Format(time.RFC3339))
	}
	p := g.Permitted()
	p.Extensions[ExtIdentity] = OneTimePassword
	return p, nil
}

// Source is what an operator calls this way in.
func (OneTimePasswords) Source() string { return "one-time password in the task's grant" }
