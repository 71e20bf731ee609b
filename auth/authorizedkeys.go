package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// AuthorizedKeys is an authorized_keys file (sshd(8)), read once: an
// [Authorizer] that lets the keys it lists into every task, each with what its
// options leave of [DefaultPermissions]. A guest is named after the comment of
// the key, or its fingerprint. As under sshd, a key listed twice may enter if
// one of its lines lets it. Its options are those of sshd, with these
// differences:
//
//   - a line that cannot be read, or with an option that is unknown or not
//     supported (environment=, cert-authority, principals=, verify-required),
//     is an error when the file is read, where sshd skips the line;
//   - host names in from= are not resolved (sshd's UseDNS no) and so match
//     nobody: see Warnings; a negated one is an error, as is an empty command=;
//   - permitopen= and permitlisten= also close the forwarding of Unix sockets,
//     which sshd leaves open;
//   - user-rc and tunnel= are accepted and change nothing: there is neither.
//
// The nil value admits nobody. It may be used by many goroutines at once.
type AuthorizedKeys struct {
	Now func() time.Time // the clock for expiry-time=; nil: time.Now

	entries  []*authorizedKey
	byKey    map[string][]*authorizedKey // by wire format
	warnings []string
}

// An authorizedKey is one line of the file.
type authorizedKey struct {
	where   string // file:line
	text    string
	key     ssh.PublicKey
	comment string
	options keyOptions
}

// ParseAuthorizedKeys reads the contents of an authorized_keys file; name is
// what errors call it. The error lists every line that is wrong, as name:line:
// what; then nothing of the file may be used.
func ParseAuthorizedKeys(name string, data []byte) (*AuthorizedKeys, error) {
	a := &AuthorizedKeys{byKey: map[string][]*authorizedKey{}}
	var errs []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.Trim(strings.TrimRight(string(line), "\r\n"), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		where := fmt.Sprintf("%s:%d", name, number)
		entry, err := parseAuthorizedKey(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, plain(err)))
			continue
		}
		entry.where = where
		a.add(entry)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return a, nil
}

func (a *AuthorizedKeys) add(entry *authorizedKey) {
	a.entries = append(a.entries, entry)
	wire := string(entry.key.Marshal())
	a.byKey[wire] = append(a.byKey[wire], entry)
	for _, name := range entry.options.neverFrom {
		a.warnings = append(a.warnings, fmt.Sprintf("%s: from=: host names are not resolved, so %q matches nobody: use addresses", entry.where, name))
	}
}

// Warnings returns what the reader of the file should know: lines that are
// valid but do less than they seem to.
func (a *AuthorizedKeys) Warnings() []string { return slices.Clone(a.warnings) }

// Lines returns the entries, without comment lines, in the form that a [Grant]
// carries.
func (a *AuthorizedKeys) Lines() []string {
	lines := make([]string, len(a.entries))
	for i, entry := range a.entries {
		lines[i] = entry.text
	}
	return lines
}

// PublicKeys returns the key of each line, in order.
func (a *AuthorizedKeys) PublicKeys() []ssh.PublicKey {
	keys := make([]ssh.PublicKey, len(a.entries))
	for i, entry := range a.entries {
		keys[i] = entry.key
	}
	return keys
}

// Authorize admits an identity whose key the file lists, into any task.
func (a *AuthorizedKeys) Authorize(_ context.Context, id Identity, _ Task) (*ssh.Permissions, error) {
	if a == nil || id.Key == nil {
		return nil, denied("no key that is authorized")
	}
	return a.authorize(id, clock(a.Now))
}

func (a *AuthorizedKeys) authorize(id Identity, now time.Time) (*ssh.Permissions, error) {
	reason := "key is not authorized"
	for _, entry := range a.byKey[string(id.Key.Marshal())] {
		err := entry.options.admit(id.Remote.Addr(), now)
		if err == nil {
			return entry.permissions(), nil
		}
		reason = fmt.Sprintf("%s: %v", entry.where, err)
	}
	return nil, denied("%s", reason)
}

func (k *authorizedKey) permissions() *ssh.Permissions {
	p := clone(k.options.permissions)
	p.Extensions[ExtIdentity] = k.name()
	return p
}

func (k *authorizedKey) name() string {
	if name := identityName(k.comment); name != "" {
		return name
	}
	return ssh.FingerprintSHA256(k.key)
}

// parseAuthorizedKey reads one line: [options] type base64 [comment].
func parseAuthorizedKey(text string) (*authorizedKey, error) {
	entry := &authorizedKey{text: text}
	rest := text
	var err error
	if !startsWithKeyType(rest) {
		if rest, err = entry.options.parse(rest); err != nil {
			return nil, err
		}
	} else if _, err = entry.options.parse(""); err != nil {
		return nil, err
	}
	entry.key, entry.comment, err = parseKeyFields(rest)
	if err != nil {
		return nil, err
	}
	return entry, nil
}

// startsWithKeyType tells a line without options. All key types that there are
// start so, and no option does.
func startsWithKeyType(s string) bool {
	return strings.HasPrefix(s, "ssh-") || strings.HasPrefix(s, "ecdsa-") || strings.HasPrefix(s, "sk-")
}

// parseKeyFields reads: type base64 [comment]. The type must be the one that
// the key itself names: x/crypto and sshd hold to that too, or options could
// hide in its place.
func parseKeyFields(s string) (ssh.PublicKey, string, error) {
	keyType, rest := cutField(s)
	encoded, comment := cutField(rest)
	if encoded == "" {
		return nil, "", errors.New("no key on this line: expected [options] type base64-key [comment], as in a .pub file")
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, "", fmt.Errorf("key is not base64 (cut off while copying?): %w", err)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, "", fmt.Errorf("key cannot be read (cut off while copying?): %w", err)
	}
	if key.Type() != keyType {
		return nil, "", fmt.Errorf("line says %.64q, but its key is of type %q", keyType, key.Type())
	}
	if !bytes.Equal(key.Marshal(), wire) || strings.Contains(encoded, "\r") {
		// A grant is searched for the key as it is written normally.
		return nil, "", errors.New("key is not written in the usual form: copy it from the .pub file again")
	}
	if err := CheckKey(key); err != nil {
		return nil, "", err
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, "", errors.New("this is a certificate: list the plain public key")
	}
	return key, comment, nil
}

func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

func clock(now func() time.Time) time.Time {
	if now == nil {
		return time.Now()
	}
	return now()
}
