package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxGuestCertificate bounds what an agent parses, and what has to fit into the
// header of a stream, in bytes. All but a forced command and lists of
// forwardings is small.
const maxGuestCertificate = 16 << 10

// certificateSkew is how long before its issue a guest certificate is already
// valid: the agent knows the gateway's time only from a message that was under
// way for a while.
const certificateSkew = time.Minute

// IssueGuestCertificate makes the certificate by which a gateway tells the
// agent who a spliced guest is: its principal is the task, its key ID the
// identity's name (or else the one in p), its extensions and critical options
// those of p that the table knows. It is valid from a minute before now until
// ttl after. Nobody holds the private half of its key, so that it opens nothing
// by itself: it is believed on a stream from the gateway and nowhere else.
func IssueGuestCertificate(ca ssh.Signer, id Identity, task TaskID, p *ssh.Permissions, now time.Time, ttl time.Duration) (*ssh.Certificate, error) {
	cert, err := newGuestCertificate(id, task, p, now, ttl)
	if err != nil {
		return nil, fmt.Errorf("guest certificate for task %q: %w", task, err)
	}
	if ca == nil {
		return nil, fmt.Errorf("guest certificate for task %q: no CA key", task)
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return nil, fmt.Errorf("sign guest certificate for task %q: %w", task, err)
	}
	if n := len(cert.Marshal()); n > maxGuestCertificate {
		return nil, fmt.Errorf("guest certificate for task %q: %d bytes long, %d are allowed: shorten the forced command or the lists of forwardings", task, n, maxGuestCertificate)
	}
	return cert, nil
}

func newGuestCertificate(id Identity, task TaskID, p *ssh.Permissions, now time.Time, ttl time.Duration) (*ssh.Certificate, error) {
	if parsed, err := ParseTaskID(string(task)); err != nil || parsed != task {
		return nil, errors.New("no name of a task")
	}
	if err := usable(p); err != nil {
		return nil, err
	}
	name := identityName(id.Name)
	if name == "" {
		name = identityName(IdentityName(p))
	}
	if name == "" {
		return nil, errors.New("the identity has no name")
	}
	if ttl < time.Second {
		return nil, fmt.Errorf("time to live is %v, at least a second is needed", ttl)
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return &ssh.Certificate{
		Key:             key,
		CertType:        ssh.UserCert,
		KeyId:           name,
		ValidPrincipals: []string{string(task)},
		ValidAfter:      uint64(now.Add(-certificateSkew).Unix()),
		ValidBefore:     uint64(now.Add(ttl).Unix()),
		Permissions:     certificatePermissions(p),
	}, nil
}

// certificatePermissions is what of p goes into a certificate: what the table
// knows. The identity is the key ID.
func certificatePermissions(p *ssh.Permissions) ssh.Permissions {
	c := clone(p)
	for name := range c.Extensions {
		if !slices.Contains(permissionNames, name) {
			delete(c.Extensions, name)
		} else {
			c.Extensions[name] = ""
		}
	}
	return *c
}

// CheckGuestCertificate reads a certificate made by [IssueGuestCertificate] and
// returns its permissions, the identity among them. It must be a user
// certificate for the task, signed by ca, valid at now (by the gateway's
// clock), with no critical option that is not understood; where it names source
// addresses, remote must be one of them. The error says what is wrong; it wraps
// [ErrDenied].
func CheckGuestCertificate(raw []byte, ca ssh.PublicKey, task TaskID, remote netip.Addr, now time.Time) (*ssh.Permissions, error) {
	if ca == nil {
		return nil, denied("guest certificate: the gateway named no CA key")
	}
	cert, err := parseGuestCertificate(raw)
	if err != nil {
		return nil, denied("guest certificate: %v", plain(err))
	}
	if err := checkGuestCertificate(cert, ca, task, remote, now); err != nil {
		return nil, denied("guest certificate: %v", plain(err))
	}
	return guestPermissions(cert), nil
}

func parseGuestCertificate(raw []byte) (*ssh.Certificate, error) {
	if len(raw) > maxGuestCertificate {
		return nil, fmt.Errorf("%d bytes long, %d are allowed", len(raw), maxGuestCertificate)
	}
	key, err := ssh.ParsePublicKey(raw)
	if err != nil {
		return nil, err
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("a key of type %q is no certificate", key.Type())
	}
	if cert.CertType != ssh.UserCert {
		return nil, fmt.Errorf("certificate type is %d, a user certificate is %d", cert.CertType, ssh.UserCert)
	}
	return cert, nil
}

func checkGuestCertificate(cert *ssh.Certificate, ca ssh.PublicKey, task TaskID, remote netip.Addr, now time.Time) error {
	if !bytes.Equal(cert.SignatureKey.Marshal(), ca.Marshal()) {
		return errors.New("not signed by the gateway's CA key")
	}
	// CheckCert takes a certificate without principals for one that is good for
	// any.
	if len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != string(task) || task == "" {
		return fmt.Errorf("it is not for task %q, but for %.64q", task, cert.ValidPrincipals)
	}
	if identityName(cert.KeyId) != cert.KeyId || cert.KeyId == "" {
		return errors.New("its key ID is no name of an identity")
	}
	if err := checkSigned(cert, now); err != nil {
		return err
	}
	if err := usable(&cert.Permissions); err != nil {
		return err
	}
	return checkSourceAddress(cert, remote)
}

func guestPermissions(cert *ssh.Certificate) *ssh.Permissions {
	p := certificatePermissions(&cert.Permissions)
	p.Extensions[ExtIdentity] = cert.KeyId
	return &p
}
