package auth

import (
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"slices"

	"golang.org/x/crypto/ssh"
)

// RevokedKeys says whose keys and certificates count no more: what sshd's
// RevokedKeys takes, read once. That is a key revocation list as ssh-keygen -k
// makes it (OpenSSH's PROTOCOL.krl), or public keys, one on each line.
//
// A certificate is revoked by its serial number or key ID, and along with its key
// or its authority. As under sshd, a serial number of 0, which stands for none,
// is not revoked, and a signature in a list is not verified: the list is taken
// from a place that only its operator can write to.
//
// It may be used by many goroutines at once.
type RevokedKeys struct {
	name   string
	keys   map[string]struct{} // by wire format
	sha1   map[[sha1.Size]byte]struct{}
	sha256 map[[sha256.Size]byte]struct{}
	certs  map[string]*revokedCertificates // by wire format of the authority; "" for any
}

// revokedCertificates are those of one authority.
type revokedCertificates struct {
	ids     map[string]struct{}
	serials []serialRange // sorted, and none overlaps another
	bitmaps []serialBitmap
}

// A serialRange holds the numbers from first to last.
type serialRange struct{ first, last uint64 }

// A serialBitmap holds first+n where bit n is set, the lowest bit being that of the
// last byte.
type serialBitmap struct {
	first uint64
	bits  []byte
}

func newRevokedKeys(name string) *RevokedKeys {
	return &RevokedKeys{
		name:   name,
		keys:   map[string]struct{}{},
		sha1:   map[[sha1.Size]byte]struct{}{},
		sha256: map[[sha256.Size]byte]struct{}{},
		certs:  map[string]*revokedCertificates{},
	}
}

// Check returns why a key or certificate is revoked, an error that wraps
// [ErrDenied], and nil if it is not.
func (r *RevokedKeys) Check(key ssh.PublicKey) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return r.checkPlain(key, "key")
	}
	if err := r.checkPlain(cert.Key, "key"); err != nil {
		return err
	}
	if err := r.checkPlain(cert.SignatureKey, "authority"); err != nil {
		return err
	}
	for _, authority := range []string{string(cert.SignatureKey.Marshal()), ""} {
		list := r.certs[authority]
		if list == nil {
			continue
		}
		if _, revoked := list.ids[cert.KeyId]; revoked {
			return denied("certificates with the key ID %q are revoked by %s", identityName(cert.KeyId), r.name)
		}
		if list.hasSerial(cert.Serial) {
			return denied("certificate number %d is revoked by %s", cert.Serial, r.name)
		}
	}
	return nil
}

func (r *RevokedKeys) checkPlain(key ssh.PublicKey, what string) error {
	wire := key.Marshal()
	_, revoked := r.keys[string(wire)]
	if !revoked {
		_, revoked = r.sha256[sha256.Sum256(wire)]
	}
	if !revoked {
		_, revoked = r.sha1[sha1.Sum(wire)]
	}
	if revoked {
		return denied("%s %s is revoked by %s", what, ssh.FingerprintSHA256(key), r.name)
	}
	return nil
}

func (c *revokedCertificates) hasSerial(serial uint64) bool {
	if serial == 0 {
		return false
	}
	_, in := slices.BinarySearchFunc(c.serials, serial, func(r serialRange, serial uint64) int {
		switch {
		case r.last < serial:
			return -1
		case r.first > serial:
			return 1
		}
		return 0
	})
	return in || slices.ContainsFunc(c.bitmaps, func(b serialBitmap) bool { return b.has(serial) })
}

func (b serialBitmap) has(serial uint64) bool {
	n := serial - b.first // far beyond the bits if serial is less
	if n/8 >= uint64(len(b.bits)) {
		return false
	}
	return b.bits[uint64(len(b.bits))-1-n/8]>>(n%8)&1 == 1
}

// merge sorts the ranges and joins those that overlap.
func (c *revokedCertificates) merge() {
	slices.SortFunc(c.serials, func(a, b serialRange) int { return cmp.Compare(a.first, b.first) })
	merged := c.serials[:0]
	for _, r := range c.serials {
		if n := len(merged); n > 0 && r.first <= merged[n-1].last {
			merged[n-1].last = max(merged[n-1].last, r.last)
			continue
		}
		merged = append(merged, r)
	}
	c.serials = merged
}
