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
// one of its lines lets it.
//
// A line with cert-authority admits no key, but certificates that this one
// signed. They must name the task among their principals or, where the line has
// principals=, one of those. Such a guest is named after the key ID, and gets
// what line and certificate both permit. A certificate says so in the extensions
// of OpenSSH; without any extension that ends in @stagedoor it also permits
// commands and sftp, as it does to sshd, and with one it is taken by its word.
//
// Options are those of sshd, with these differences:
//
//   - a line that cannot be read, or with an option that is unknown or not
//     supported (environment=, verify-required), is an error when the file is
//     read, where sshd skips the line;
//   - gateway-ports is our own, and gives PermitGatewayPorts; nothing else does,
//     other than the permissions of a [Grant];
//   - a certificate without principals, which to sshd is anybody's, is refused;
//   - host names in from= are not resolved (sshd's UseDNS no) and an error, as is
//     an empty command=;
//   - permitopen= and permitlisten= also close the forwarding of Unix sockets,
//     which sshd leaves open;
//   - user-rc and tunnel= are accepted and change nothing: there is neither.
//
// The nil value admits nobody. It may be used by many goroutines at once.
type AuthorizedKeys struct {
	Now func() time.Time // the clock for expiry-time=; nil: time.Now

	name        string
	entries     []*authorizedKey
	byKey       map[string][]*authorizedKey // by wire format
	byAuthority map[string][]*authorizedKey // the lines with cert-authority
}

// An authorizedKey is one line of the file.
type authorizedKey struct {
	where   string // file:line
	text    string
	key     ssh.PublicKey
	comment string
	options keyOptions
}

// maxWrongLines is how many mistakes are told of one file: with more of them it is
// probably another kind of file.
const maxWrongLines = 5

// ParseAuthorizedKeys reads the contents of an authorized_keys file; name is
// what errors call it. The error lists the first lines that are wrong, as
// name:line: what, and no secret that was taken for a key; of a private key it
// wraps [ErrPrivateKey]. Then nothing of the file may be used.
func ParseAuthorizedKeys(name string, data []byte) (*AuthorizedKeys, error) {
	if IsPrivateKey(data) {
		return nil, fmt.Errorf("%s: %w: give its public half, as in a .pub file", name, ErrPrivateKey)
	}
	a := &AuthorizedKeys{name: name, byKey: map[string][]*authorizedKey{}, byAuthority: map[string][]*authorizedKey{}}
	var errs []error
	number, wrong := 0, 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.Trim(strings.TrimRight(string(line), "\r\n"), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		where := fmt.Sprintf("%s:%d", name, number)
		entry, err := parseAuthorizedKey(text)
		if err != nil {
			if wrong++; wrong <= maxWrongLines {
				errs = append(errs, fmt.Errorf("%s: %w", where, plain(err)))
			}
			continue
		}
		entry.where = where
		a.add(entry)
	}
	if more := wrong - maxWrongLines; more > 0 {
		errs = append(errs, fmt.Errorf("%s: %d more lines are wrong", name, more))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return a, nil
}

func (a *AuthorizedKeys) add(entry *authorizedKey) {
	a.entries = append(a.entries, entry)
	by := a.byKey
	if entry.options.authority {
		by = a.byAuthority
	}
	wire := string(entry.key.Marshal())
	by[wire] = append(by[wire], entry)
}

// Source is what the file was called when it was read.
func (a *AuthorizedKeys) Source() string { return a.name }

// Lines returns the entries, without comment lines, in the form that a [Grant]
// carries.
func (a *AuthorizedKeys) Lines() []string {
	lines := make([]string, len(a.entries))
	for i, entry := range a.entries {
		lines[i] = entry.text
	}
	return lines
}

// PublicKeys returns the key of each line, in order; where it says
// cert-authority, that of the authority.
func (a *AuthorizedKeys) PublicKeys() []ssh.PublicKey {
	keys := make([]ssh.PublicKey, len(a.entries))
	for i, entry := range a.entries {
		keys[i] = entry.key
	}
	return keys
}

// Authorize admits an identity whose key the file lists, into any task, and one
// whose certificate is good for the task.
func (a *AuthorizedKeys) Authorize(_ context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	if a == nil || id.Key == nil {
		return nil, denied("no key that is authorized")
	}
	who, err := newClaimant(id)
	if err != nil {
		return nil, err
	}
	return a.authorize(who, task.ID, clock(a.Now), func(entry *authorizedKey) *ssh.Permissions {
		limit := FullPermissions()
		if !entry.options.gatewayPorts {
			limit = DefaultPermissions()
		}
		return limit
	})
}

// authorize returns what the first line that admits the claimant permits,
// limited by what limit returns for it.
func (a *AuthorizedKeys) authorize(who *claimant, task TaskID, now time.Time, limit func(*authorizedKey) *ssh.Permissions) (*ssh.Permissions, error) {
	lines := a.byKey
	if who.cert != nil {
		lines = a.byAuthority
	}
	reason := "key is not authorized"
	if who.cert != nil {
		reason = "certificate is by an authority that is not listed, " + ssh.FingerprintSHA256(who.cert.SignatureKey)
	}
	for _, entry := range lines[who.listed] {
		p, err := entry.admit(who, task, now)
		if err == nil {
			most := limit(entry)
			most.Extensions[noTouchRequired] = "" // for the key's own options to say
			return Intersect(p, most), nil
		}
		reason = fmt.Sprintf("%s: %v", entry.where, err)
	}
	return nil, denied("%s", reason)
}

// admit returns what a claimant with the key of this line may do.
func (k *authorizedKey) admit(who *claimant, task TaskID, now time.Time) (*ssh.Permissions, error) {
	if err := k.options.admit(who.remote, now); err != nil {
		return nil, err
	}
	if who.cert != nil {
		return k.admitCertificate(who, task, now)
	}
	p := clone(k.options.permissions)
	p.Extensions[ExtIdentity] = k.name()
	return p, nil
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
	if entry.options.principals != nil && !entry.options.authority {
		return nil, errors.New("option \"principals\" is about certificates: add cert-authority, or leave it out")
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

// keyTypes are those of [CheckKey].
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA,
}

func quoteType(s string) string {
	if slices.Contains(keyTypes, s) {
		return fmt.Sprintf("%q", s)
	}
	return quoteWord(s)
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
		// x/crypto quotes what it takes for the type, which in the blob of a
		// private key is the key.
		return nil, "", errors.New("key cannot be read: it was cut off while copying, or is of a type that is not supported")
	}
	if key.Type() != keyType {
		return nil, "", fmt.Errorf("line says %s, but its key is of type %q", quoteType(keyType), key.Type())
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
