package auth

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// An Authority is an [Authorizer] that admits who has a user certificate by one of
// an organization's keys, as sshd does with TrustedUserCAKeys. The certificate has
// to name the task among its principals or, with Tasks, a principal to which the
// task is open. Such a guest is named after the key ID.
//
// What the certificate permits is what its extensions say; without any that ends in
// @stagedoor it also permits commands and sftp, as it does to sshd. Its options
// source-address and force-command hold. PermitGatewayPorts, and leave not to touch
// a security key (no-touch-required), it gives if it says so. Certificates of hosts,
// those within others, without principals, out of their time or with an option that
// is not known are refused.
//
// The zero value admits nobody. It may be used by many goroutines at once.
type Authority struct {
	// Name is what reasons and operators call it.
	Name string
	// Keys sign the certificates.
	Keys []ssh.PublicKey
	// Tasks says which tasks a principal opens, by patterns in which * stands for
	// any number of characters (see CheckTaskPattern). Nil: that of its name.
	Tasks map[string][]string
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// taskPattern is a [TaskID] with asterisks.
var taskPattern = regexp.MustCompile(`^[a-z0-9*][a-z0-9._*-]{0,62}$`)

// CheckTaskPattern says what is wrong with a pattern of Authority.Tasks.
func CheckTaskPattern(pattern string) error {
	if !taskPattern.MatchString(pattern) {
		return fmt.Errorf("%.64q is no pattern for tasks: write the name of a task in lower case, with * for any characters", pattern)
	}
	return nil
}

// ParseAuthorities reads the public keys of authorities, one on each line; name is
// what errors call the file. Options are refused: they would not hold.
func ParseAuthorities(name string, data []byte) ([]ssh.PublicKey, error) {
	list, err := ParseAuthorizedKeys(name, data)
	if err != nil {
		return nil, err
	}
	for _, entry := range list.entries {
		if !startsWithKeyType(entry.text) {
			return nil, fmt.Errorf("%s: options do not count for an authority's key: leave the key alone on its line", entry.where)
		}
	}
	if len(list.entries) == 0 {
		return nil, fmt.Errorf("%s: there is no public key in it", name)
	}
	return list.PublicKeys(), nil
}

// Source is its name.
func (a *Authority) Source() string { return a.Name }

// Authorize admits an identity whose certificate is by one of the keys, and good for
// the task.
func (a *Authority) Authorize(_ context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	cert, err := a.certificate(id)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(cert.ValidPrincipals, func(name string) bool { return a.opens(name, task.ID) }) {
		return nil, denied("%s", a.notOpen(cert, task.ID))
	}
	return userCertificatePermissions(cert), nil
}

// Knows returns nil if there may be a task that an identity would be admitted to,
// and otherwise why not: for who has to answer before the task is known.
func (a *Authority) Knows(id Identity) error {
	cert, err := a.certificate(id)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(cert.ValidPrincipals, a.opensAny) {
		return denied("certificate lists the principals %.200q, and none of them opens any task", cert.ValidPrincipals)
	}
	return nil
}

// certificate returns that of an identity if it is by one of the keys, and in order.
func (a *Authority) certificate(id Identity) (*ssh.Certificate, error) {
	if id.Key == nil {
		return nil, denied("no certificate")
	}
	who, err := newClaimant(id)
	switch {
	case err != nil:
		return nil, err
	case who.cert == nil:
		return nil, denied("the key comes without a certificate")
	case !slices.ContainsFunc(a.Keys, func(key ssh.PublicKey) bool { return string(key.Marshal()) == who.listed }):
		return nil, denied("certificate is by another authority, %s", ssh.FingerprintSHA256(who.cert.SignatureKey))
	}
	if err := checkUserCertificate(who.cert, who.remote, clock(a.Now)); err != nil {
		return nil, denied("certificate: %v", plain(err))
	}
	return who.cert, nil
}

// opens tells whether a principal may enter a task.
func (a *Authority) opens(principal string, task TaskID) bool {
	switch {
	case principal == "" || task == "":
		return false
	case a.Tasks == nil:
		return principal == string(task)
	}
	return slices.ContainsFunc(a.Tasks[principal], func(pattern string) bool { return matchWildcard(pattern, string(task)) })
}

// opensAny tells whether there can be a task that a principal may enter.
func (a *Authority) opensAny(principal string) bool {
	if a.Tasks != nil {
		return principal != "" && len(a.Tasks[principal]) > 0
	}
	task, err := ParseTaskID(principal)
	return err == nil && string(task) == principal
}

// notOpen says why a certificate that is in order does not open a task.
func (a *Authority) notOpen(cert *ssh.Certificate, task TaskID) string {
	text := fmt.Sprintf("certificate lists the principals %.200q, and not %.64q", cert.ValidPrincipals, task)
	if a.Tasks == nil {
		return text
	}
	var opened []string
	for _, name := range slices.Sorted(maps.Keys(a.Tasks)) {
		if a.opensAny(name) && slices.Contains(cert.ValidPrincipals, name) {
			opened = append(opened, fmt.Sprintf("%.64q opens %s", name, strings.Join(a.Tasks[name], ", ")))
		}
	}
	if opened == nil {
		return fmt.Sprintf("certificate lists the principals %.200q, and none of them opens any task", cert.ValidPrincipals)
	}
	return "certificate is for other tasks: " + printable.Text(strings.Join(opened, "; "), maxErrorText)
}
