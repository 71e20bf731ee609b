package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// revocable are keys and certificates for lists to be asked about, by name. Each
// lies in a file of that name with .pub behind it.
type revocable struct {
	t    *testing.T
	dir  string
	keys map[string]ssh.PublicKey
	sign map[string]ssh.Signer // who can prove them
}

func newRevocable(t *testing.T) *revocable {
	r := &revocable{t: t, dir: t.TempDir(), keys: map[string]ssh.PublicKey{}, sign: map[string]ssh.Signer{}}
	for _, name := range []string{"alice", "bob", "ca", "other"} {
		r.add(name, newSigner(t))
	}
	for _, serial := range []uint64{0, 1, 5, 10, 15, 20, 21, 1003, 1004, 1 << 40, 1<<64 - 2, 1<<64 - 1} {
		r.certify(fmt.Sprintf("alice-%d", serial), "alice", "ca", "alice@example.com", serial)
	}
	r.certify("alice-other", "alice", "other", "alice@example.com", 5)
	r.certify("bob-5", "bob", "ca", "bob@example.com", 5)
	r.certify("bob-6", "bob", "ca", "bob@example.com", 6)
	return r
}

func (r *revocable) add(name string, signer ssh.Signer) {
	r.keys[name], r.sign[name] = signer.PublicKey(), signer
	writeFile(r.t, 0o600, ssh.MarshalAuthorizedKey(signer.PublicKey()), r.dir, name+".pub")
}

func (r *revocable) certify(name, key, ca, id string, serial uint64) {
	r.t.Helper()
	cert := &ssh.Certificate{Key: r.keys[key], CertType: ssh.UserCert, KeyId: id, Serial: serial, ValidBefore: ssh.CertTimeInfinity,
		ValidPrincipals: []string{"task-1", "root", "anybody"}}
	if err := cert.SignCert(rand.Reader, r.sign[ca]); err != nil {
		r.t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, r.sign[key])
	if err != nil {
		r.t.Fatal(err)
	}
	r.add(name, signer)
}

// list makes a list out of a specification (ssh-keygen(1), KEY REVOCATION LISTS).
func (r *revocable) list(args []string, spec string) string {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "krl")
	writeFile(r.t, 0o600, []byte(spec), r.dir, "spec")
	keygen(r.t, r.dir, append(append([]string{"-k", "-q", "-f", file}, args...), "spec")...)
	return file
}

// keygenSays asks ssh-keygen about all; ok is false when it cannot read the list.
func (r *revocable) keygenSays(list string) (revoked map[string]bool, ok bool) {
	r.t.Helper()
	args := []string{"-Q", "-f", list}
	for name := range r.keys {
		args = append(args, name+".pub")
	}
	cmd := exec.CommandContext(r.t.Context(), program(r.t, "ssh-keygen"), args...)
	cmd.Dir = r.dir
	out, _ := cmd.CombinedOutput() // its status tells of any that is revoked
	revoked = map[string]bool{}
	for line := range strings.Lines(string(out)) {
		file, verdict, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name, is := strings.CutSuffix(file, ".pub"); is {
			revoked[name] = strings.HasSuffix(verdict, "REVOKED")
		}
	}
	if len(revoked) != len(r.keys) {
		return nil, false
	}
	return revoked, true
}

// agree fails unless a list means the same here as to ssh-keygen, and returns how
// many it revokes.
func (r *revocable) agree(list string) (n int) {
	r.t.Helper()
	want, ok := r.keygenSays(list)
	parsed, err := ParseRevokedKeys("krl", readFile(r.t, list))
	if !ok || err != nil {
		r.t.Fatalf("ssh-keygen reads it: %v; here: %v", ok, err)
	}
	for name, key := range r.keys {
		err := parsed.Check(key)
		if (err != nil) != want[name] {
			r.t.Errorf("%s: %v; to ssh-keygen it is revoked: %v", name, err, want[name])
		}
		if err != nil {
			n++
			testenv.CheckText(r.t, err)
			if !errors.Is(err, ErrDenied) {
				r.t.Errorf("%s: %v is no refusal", name, err)
			}
		}
	}
	return n
}

// TestRevokedKeysAgreesWithKeygen: what ssh-keygen writes means the same here.
func TestRevokedKeysAgreesWithKeygen(t *testing.T) {
	r := newRevocable(t)
	alice := strings.TrimSpace(string(readFile(t, r.dir, "alice.pub")))
	dense := ""
	for i := range 40 {
		dense += fmt.Sprintf("serial: %d\n", 1000+3*i) // a bitmap
	}
	for name, test := range map[string]struct {
		args []string
		spec string
		n    int
	}{
		"nobody":                     {nil, "# nobody\n", 0},
		"a serial":                   {[]string{"-s", "ca.pub"}, "serial: 5\n", 2},
		"serials":                    {[]string{"-s", "ca.pub"}, "serial: 1\nserial: 1099511627776\nserial: 18446744073709551615\n", 3},
		"a range":                    {[]string{"-s", "ca.pub"}, "serial: 10-20\nserial: 18446744073709551614-18446744073709551615\n", 5},
		"a bitmap":                   {[]string{"-s", "ca.pub"}, dense, 1},
		"a bitmap at the end":        {[]string{"-s", "ca.pub"}, "serial: 18446744073709551600\nserial: 18446744073709551604\nserial: 18446744073709551609\nserial: 18446744073709551615\nserial: 18446744073709551611\n", 1},
		"serials of another":         {[]string{"-s", "other.pub"}, "serial: 5\nserial: 10\n", 1},
		"serials of any":             {[]string{"-s", "none"}, "serial: 5\nserial: 10\n", 4},
		"a key ID":                   {[]string{"-s", "ca.pub"}, "id: bob@example.com\n", 2},
		"a key ID of any":            {[]string{"-s", "none"}, "id: alice@example.com\n", 13},
		"a key":                      {nil, "key: " + alice + "\n", 14},
		"a SHA-1":                    {nil, "sha1: " + alice + "\n", 14},
		"a SHA-256":                  {nil, "sha256: " + alice + "\n", 14},
		"a hash":                     {nil, "hash: " + ssh.FingerprintSHA256(r.keys["bob"]) + "\n", 3},
		"an authority":               {nil, "key: " + strings.TrimSpace(string(readFile(t, r.dir, "ca.pub"))) + "\n", 15},
		"an authority by hash":       {nil, "sha256: " + strings.TrimSpace(string(readFile(t, r.dir, "other.pub"))) + "\n", 2},
		"a mixture, with a comment":  {[]string{"-s", "ca.pub", "-z", "7"}, "serial: 5\nid: alice@example.com\nhash: " + ssh.FingerprintSHA256(r.keys["other"]) + "\n", 15},
		"overlapping ranges":         {[]string{"-s", "ca.pub"}, "serial: 1-9\nserial: 3-12\nserial: 15-16\nserial: 2-3\n", 6},
		"a certificate by its file":  {[]string{"-s", "ca.pub"}, strings.Replace("key: %", "%", strings.TrimSpace(string(readFile(t, r.dir, "bob.pub"))), 1) + "\n", 3},
		"ranges with neighbours":     {[]string{"-s", "ca.pub"}, "serial: 1-4\nserial: 6-9\nserial: 11-14\nserial: 16-19\n", 2},
		"a serial that nobody has":   {[]string{"-s", "ca.pub"}, "serial: 4242\n", 0},
		"a key ID that nobody has":   {[]string{"-s", "ca.pub"}, "id: alice\n", 0},
		"key ID and serial, any one": {[]string{"-s", "none"}, "id: bob@example.com\nserial: 21\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			if n := r.agree(r.list(test.args, test.spec)); n != test.n {
				t.Errorf("%d are revoked, want %d", n, test.n)
			}
		})
	}
}

// TestRevokedKeysList: a list of plain keys, as sshd takes it too.
func TestRevokedKeysList(t *testing.T) {
	r := newRevocable(t)
	for name, text := range map[string]string{
		"alice":                    "# comment\n\n" + line(r.keys["alice"], "alice") + "\n",
		"an authority":             "  " + line(r.keys["ca"], "") + "\r\n",
		"both, no newline at last": line(r.keys["bob"], "b c") + "\n\t" + line(r.keys["other"], "o"),
		"the key in a certificate": line(r.keys["bob-5"], "bob"),
		"nobody":                   "# nobody\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			want := map[string]int{"alice": 14, "an authority": 15, "both, no newline at last": 5, "the key in a certificate": 3}
			list, err := ParseRevokedKeys("keys", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, key := range r.keys {
				if list.Check(key) != nil {
					n++
				}
			}
			if n != want[name] {
				t.Errorf("%d are revoked, want %d", n, want[name])
			}
		})
	}
}

// wireString is a string of RFC 4251 section 5.
func wireString(parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func wireNumbers(numbers ...uint64) (b []byte) {
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func section(kind byte, parts ...[]byte) []byte { return append([]byte{kind}, wireString(parts...)...) }

// krlOf is a list with these sections.
func krlOf(sections ...[]byte) []byte {
	head := append([]byte(krlMagic), 0, 0, 0, 1)
	head = append(head, wireNumbers(1, 1, 0)...)
	return append(append(head, bytes.Repeat([]byte{0}, 8)...), bytes.Join(sections, nil)...)
}

// ofAnybody is a section about certificates by any authority.
func ofAnybody(subsections ...[]byte) []byte {
	return section(krlCertificates, append([][]byte{wireString(), wireString()}, subsections...)...)
}

// TestMistakesInRevokedKeys: whatever cannot be understood is an error, and a list
// is cut off nowhere without one.
func TestMistakesInRevokedKeys(t *testing.T) {
	key := newSigner(t).PublicKey()
	text := line(key, "alice")
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":                    {nil, "it is empty"},
		"a private key":              {[]byte("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"), "private key"},
		"a list cut off":             {[]byte(text[:60]), "line 1: "},
		"half a magic":               {[]byte(krlMagic[:6]), "line 1: "},
		"options":                    {[]byte("# x\nrestrict " + text), "line 2: "},
		"a specification":            {[]byte("serial: 5\n"), "ssh-keygen -k"},
		"another type":               {[]byte(strings.Replace(text, "ssh-ed25519", "ssh-rsa", 1)), `its key is of type "ssh-ed25519"`},
		"another version":            {append([]byte(krlMagic), 0, 0, 0, 2), "version 2"},
		"an unknown section":         {krlOf(section(9, nil)), "kind 9"},
		"an unknown certificate one": {krlOf(ofAnybody(section(0x30, nil))), "kind 0x30"},
		"a critical extension":       {krlOf(section(krlExtension, wireString([]byte("x@example.com")), []byte{1}, wireString())), "x@example.com"},
		"a critical inner extension": {krlOf(ofAnybody(section(krlCertExtension, wireString([]byte("y@example.com")), []byte{1}, wireString()))), "y@example.com"},
		"serial 0":                   {krlOf(ofAnybody(section(krlSerialList, wireNumbers(0)))), "there are none"},
		"a range backwards":          {krlOf(ofAnybody(section(krlSerialRange, wireNumbers(5, 4)))), "there are none"},
		"half a serial":              {krlOf(ofAnybody(section(krlSerialList, wireNumbers(5)[:7]))), "cut off"},
		"a bitmap beyond":            {krlOf(ofAnybody(section(krlSerialBitmap, wireNumbers(1<<64-4), wireString([]byte{0x10})))), "beyond"},
		"a bitmap with 0":            {krlOf(ofAnybody(section(krlSerialBitmap, wireNumbers(0), wireString([]byte{1})))), "beyond"},
		"a negative bitmap":          {krlOf(ofAnybody(section(krlSerialBitmap, wireNumbers(1), wireString([]byte{0x80})))), "negative"},
		"a huge bitmap":              {krlOf(ofAnybody(section(krlSerialBitmap, wireNumbers(1), wireString(bytes.Repeat([]byte{1}, 2050))))), "too long"},
		"an authority that is none":  {krlOf(section(krlCertificates, wireString([]byte("x")), wireString())), "authority"},
		"a SHA-1 of 19 bytes":        {krlOf(section(krlSHA1, wireString(make([]byte, 19)))), "length"},
		"a SHA-256 of 33 bytes":      {krlOf(section(krlSHA256, wireString(make([]byte, 33)))), "length"},
		"more than a signature":      {krlOf(append(section(krlSignature, []byte("key")), wireString([]byte("sig"))...), section(krlKeys, wireString([]byte("k")))), "follows"},
		"a section of 4 GiB":         {append(krlOf(), krlKeys, 0xff, 0xff, 0xff, 0xff), "cut off"},
	} {
		list, err := ParseRevokedKeys("krl", test.data)
		if err == nil || list != nil || !strings.HasPrefix(err.Error(), "krl: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err != nil {
			testenv.CheckText(t, err)
		}
	}
	whole := krlOf(ofAnybody(section(krlSerialBitmap, wireNumbers(1<<64-4), wireString([]byte{8})), section(krlKeyIDs, wireString([]byte("x")))),
		section(krlExtension, wireString([]byte("x@example.com")), []byte{0}, wireString()), section(krlKeys, wireString(key.Marshal())),
		append(section(krlSignature, []byte("key")), wireString([]byte("sig"))...))
	if list, err := ParseRevokedKeys("krl", whole); err != nil || list.Check(key) == nil {
		t.Errorf("what may be passed over is not: %v", err)
	}
	for n := 1; n < len(whole); n++ {
		list, err := ParseRevokedKeys("krl", whole[:n])
		if err == nil && list.Check(key) == nil && !wholeSections(whole[:n]) {
			t.Errorf("cut off after %d bytes it is taken", n)
		}
	}
}

// wholeSections tells whether a list ends with a section, where nobody can tell
// that more followed.
func wholeSections(data []byte) bool {
	rest := data[min(len(data), len(krlOf())):]
	for len(rest) >= 5 {
		n := 5 + int(binary.BigEndian.Uint32(rest[1:]))
		if n > len(rest) {
			return false
		}
		rest = rest[n:]
	}
	return len(data) >= len(krlOf()) && len(rest) == 0
}

// TestRevokedKeysAgreesOnForgeries: lists that ssh-keygen does not write are taken
// and refused alike.
func TestRevokedKeysAgreesOnForgeries(t *testing.T) {
	r := newRevocable(t)
	ca := wireString(r.keys["ca"].Marshal())
	for name, data := range map[string][]byte{
		"the end of the numbers":  krlOf(section(krlCertificates, ca, wireString(), section(krlSerialBitmap, wireNumbers(1<<64-3), wireString([]byte{6})))),
		"beyond the end":          krlOf(section(krlCertificates, ca, wireString(), section(krlSerialBitmap, wireNumbers(1<<64-3), wireString([]byte{8})))),
		"bits of two bytes":       krlOf(section(krlCertificates, ca, wireString(), section(krlSerialBitmap, wireNumbers(2), wireString([]byte{1, 8})))),
		"a bitmap without bits":   krlOf(section(krlCertificates, ca, wireString(), section(krlSerialBitmap, wireNumbers(5), wireString()))),
		"bits with a zero before": krlOf(section(krlCertificates, ca, wireString(), section(krlSerialBitmap, wireNumbers(5), wireString([]byte{0, 0x81})))),
		"the same authority again": krlOf(section(krlCertificates, ca, wireString(), section(krlSerialList, wireNumbers(20, 5))),
			section(krlCertificates, ca, wireString([]byte("reserved")), section(krlSerialRange, wireNumbers(4, 10)))),
		"a zero":               krlOf(ofAnybody(section(krlSerialList, wireNumbers(0)))),
		"backwards":            krlOf(ofAnybody(section(krlSerialRange, wireNumbers(5, 4)))),
		"a key ID with a zero": krlOf(ofAnybody(section(krlKeyIDs, wireString([]byte("bob@example.com\x00x"))))),
		"keys of nobody":       krlOf(section(krlKeys, wireString([]byte("x")), wireString())),
		"more in a range":      krlOf(ofAnybody(section(krlSerialRange, wireNumbers(4, 5, 6)))),
		"an unknown section":   krlOf(section(17, nil)),
		"a wrong hash":         krlOf(section(krlSHA1, wireString([]byte("x")))),
	} {
		file := writeFile(t, 0o600, data, t.TempDir(), "krl")
		if _, ok := r.keygenSays(file); ok {
			t.Run(name, func(t *testing.T) {
				r := *r
				r.t = t
				r.agree(file)
			})
		} else if _, err := ParseRevokedKeys("krl", data); err == nil {
			t.Errorf("%s: ssh-keygen refuses it, and it is taken here", name)
		}
	}
}

// FuzzRevokedKeys: whatever a file holds, it is read to an end or refused in words
// that fit into a log.
func FuzzRevokedKeys(f *testing.F) {
	signer := newSigner(f)
	cert := &ssh.Certificate{Key: signer.PublicKey(), SignatureKey: signer.PublicKey(), CertType: ssh.UserCert, KeyId: "alice", Serial: 5}
	f.Add([]byte(line(signer.PublicKey(), "alice")))
	f.Add(krlOf(ofAnybody(section(krlSerialBitmap, wireNumbers(1), wireString([]byte{1, 8})), section(krlSerialList, wireNumbers(1, 2)), section(krlSerialRange, wireNumbers(3, 9)))))
	f.Add(krlOf(section(krlKeys, wireString(signer.PublicKey().Marshal())), section(krlSHA1, wireString(make([]byte, 20))), section(krlSHA256, wireString(make([]byte, 32)))))
	f.Add(krlOf(section(krlCertificates, wireString(signer.PublicKey().Marshal()), wireString(), section(krlKeyIDs, wireString([]byte("alice"))))))
	f.Add(append(krlOf(), append(section(krlSignature, []byte("key")), wireString([]byte("sig"))...)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseRevokedKeys("krl", data)
		if err != nil {
			testenv.CheckText(t, err)
			return
		}
		for _, key := range []ssh.PublicKey{signer.PublicKey(), cert} {
			if err := list.Check(key); err != nil {
				testenv.CheckText(t, err)
			}
		}
	})
}
