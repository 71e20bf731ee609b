package auth

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// krlMagic is how a key revocation list begins.
const krlMagic = "SSHKRL\n\x00"

// Kinds of sections and, from 0x20, of those about certificates.
const (
	krlCertificates = 1
	krlKeys         = 2
	krlSHA1         = 3
	krlSignature    = 4
	krlSHA256       = 5
	krlExtension    = 255

	krlSerialList    = 0x20
	krlSerialRange   = 0x21
	krlSerialBitmap  = 0x22
	krlKeyIDs        = 0x23
	krlCertExtension = 0x39
)

var errKRLCut = errors.New("it is cut off, or was not written by ssh-keygen -k")

// parseKRL reads what follows the magic.
func (r *RevokedKeys) parseKRL(data []byte) error {
	in := cryptobyte.String(data)
	var format uint32
	var version, generated, flags uint64
	var reserved, comment []byte
	if !in.ReadUint32(&format) {
		return errKRLCut
	}
	if format != 1 {
		return fmt.Errorf("its format has the version %d, and only 1 is known", format)
	}
	if !in.ReadUint64(&version) || !in.ReadUint64(&generated) || !in.ReadUint64(&flags) ||
		!readString(&in, &reserved) || !readString(&in, &comment) {
		return errKRLCut
	}
	signed := false
	for !in.Empty() {
		var kind uint8
		var body []byte
		if !in.ReadUint8(&kind) || !readString(&in, &body) {
			return errKRLCut
		}
		if signed && kind != krlSignature {
			return errors.New("something follows its signature")
		}
		if signed = kind == krlSignature; signed {
			if !readString(&in, &body) { // body was the key
				return errKRLCut
			}
			continue
		}
		if err := r.parseSection(kind, body); err != nil {
			return err
		}
	}
	for _, c := range r.certs {
		c.merge()
	}
	return nil
}

func (r *RevokedKeys) parseSection(kind uint8, body cryptobyte.String) error {
	switch kind {
	case krlCertificates:
		return r.parseCertificates(body)
	case krlKeys:
		return eachString(body, func(key []byte) error {
			r.keys[string(key)] = struct{}{}
			return nil
		})
	case krlSHA1:
		return eachString(body, func(hash []byte) error {
			if len(hash) != sha1.Size {
				return errors.New("a SHA-1 hash in it is of another length")
			}
			r.sha1[[sha1.Size]byte(hash)] = struct{}{}
			return nil
		})
	case krlSHA256:
		return eachString(body, func(hash []byte) error {
			if len(hash) != sha256.Size {
				return errors.New("a SHA-256 hash in it is of another length")
			}
			r.sha256[[sha256.Size]byte(hash)] = struct{}{}
			return nil
		})
	case krlExtension:
		return parseKRLExtension(body)
	}
	return fmt.Errorf("a section in it is of kind %d, which is not known here", kind)
}

// parseKRLExtension refuses those that must not be passed over.
func parseKRLExtension(body cryptobyte.String) error {
	var name, contents []byte
	var critical uint8
	if !readString(&body, &name) || !body.ReadUint8(&critical) || !readString(&body, &contents) || !body.Empty() {
		return errKRLCut
	}
	if critical != 0 {
		return fmt.Errorf("it has the critical extension %.64q, which is not known here", name)
	}
	return nil
}

func (r *RevokedKeys) parseCertificates(body cryptobyte.String) error {
	var authority, reserved []byte
	if !readString(&body, &authority) || !readString(&body, &reserved) {
		return errKRLCut
	}
	if len(authority) > 0 {
		key, err := ssh.ParsePublicKey(authority)
		if err != nil {
			return errors.New("the key of an authority in it cannot be read")
		}
		authority = key.Marshal()
	}
	list := r.certs[string(authority)]
	if list == nil {
		list = &revokedCertificates{ids: map[string]struct{}{}}
		r.certs[string(authority)] = list
	}
	for !body.Empty() {
		var kind uint8
		var section []byte
		if !body.ReadUint8(&kind) || !readString(&body, &section) {
			return errKRLCut
		}
		if err := list.parse(kind, section); err != nil {
			return err
		}
	}
	return nil
}

func (c *revokedCertificates) parse(kind uint8, body cryptobyte.String) error {
	switch kind {
	case krlSerialList:
		for !body.Empty() {
			var serial uint64
			if !body.ReadUint64(&serial) {
				return errKRLCut
			}
			if err := c.add(serial, serial); err != nil {
				return err
			}
		}
		return nil
	case krlSerialRange:
		var first, last uint64
		if !body.ReadUint64(&first) || !body.ReadUint64(&last) || !body.Empty() {
			return errKRLCut
		}
		return c.add(first, last)
	case krlSerialBitmap:
		return c.parseBitmap(body)
	case krlKeyIDs:
		return eachString(body, func(id []byte) error {
			if slices.Contains(id, 0) {
				return errors.New("a key ID in it holds a zero byte")
			}
			c.ids[string(id)] = struct{}{}
			return nil
		})
	case krlCertExtension:
		return parseKRLExtension(body)
	}
	return fmt.Errorf("a section about certificates in it is of kind %#x, which is not known here", kind)
}

// add revokes a range. As to OpenSSH, 0 is no number that could be meant.
func (c *revokedCertificates) add(first, last uint64) error {
	if first == 0 || first > last {
		return fmt.Errorf("it revokes the certificates from number %d to %d: there are none", first, last)
	}
	c.serials = append(c.serials, serialRange{first, last})
	return nil
}

// maxKRLBitmap is what OpenSSH takes, in bytes.
const maxKRLBitmap = 2049

// parseBitmap reads a number (an mpint, RFC 4251 section 5) whose bits are set.
func (c *revokedCertificates) parseBitmap(body cryptobyte.String) error {
	b := serialBitmap{}
	if !body.ReadUint64(&b.first) || !readString(&body, &b.bits) || !body.Empty() {
		return errKRLCut
	}
	if len(b.bits) > maxKRLBitmap || len(b.bits) > 0 && b.bits[0]&0x80 != 0 {
		return errors.New("a bitmap of serial numbers in it is too long, or negative")
	}
	for len(b.bits) > 0 && b.bits[0] == 0 {
		b.bits = b.bits[1:]
	}
	if len(b.bits) == 0 {
		return nil
	}
	highest := uint64(8*(len(b.bits)-1) + bits.Len8(b.bits[0]) - 1)
	if b.first > math.MaxUint64-highest || b.first == 0 && b.bits[len(b.bits)-1]&1 == 1 {
		return errors.New("a bitmap of serial numbers in it goes beyond those that there are")
	}
	b.bits = slices.Clone(b.bits) // or all of the file stays in memory
	c.bitmaps = append(c.bitmaps, b)
	return nil
}

// eachString calls f for the strings that make up a section.
func eachString(body cryptobyte.String, f func([]byte) error) error {
	for !body.Empty() {
		var s []byte
		if !readString(&body, &s) {
			return errKRLCut
		}
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

// readString reads a string of RFC 4251 section 5.
func readString(in *cryptobyte.String, out *[]byte) bool {
	var n uint32
	return in.ReadUint32(&n) && n <= math.MaxInt32 && in.ReadBytes(out, int(n))
}
