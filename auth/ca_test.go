package auth

import (
	"crypto/ed25519"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

const someTask = TaskID("task-1234")

var someAddr = netip.MustParseAddr("10.1.2.3")

func issueForTest(t testing.TB, ca ssh.Signer, p *ssh.Permissions) *ssh.Certificate {
	t.Helper()
	cert, err := IssueGuestCertificate(ca, Identity{Name: "alice@example.com"}, someTask, p, noon, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func restrictedPermissions() *ssh.Permissions {
	p := noPermissions()
	p.Extensions[PermitPTY] = ""
	p.Extensions[PermitExec] = ""
	p.CriticalOptions[ForceCommand] = "make test"
	p.CriticalOptions[SourceAddress] = "10.0.0.0/8,::1/128"
	p.CriticalOptions[PermitOpen] = "localhost:80"
	p.CriticalOptions[PermitListen] = "*:8080"
	return p
}

func TestGuestCertificateCarriesPermissions(t *testing.T) {
	ca := newSigner(t)
	for what, p := range map[string]*ssh.Permissions{"none": noPermissions(), "full": FullPermissions(), "restricted": restrictedPermissions(), "nil maps": {}} {
		raw := issueForTest(t, ca, p).Marshal()
		got, err := CheckGuestCertificate(raw, ca.PublicKey(), someTask, someAddr, noon)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if IdentityName(got) != "alice@example.com" {
			t.Errorf("%s: identity %q", what, IdentityName(got))
		}
		delete(got.Extensions, ExtIdentity)
		if !maps.Equal(got.Extensions, p.Extensions) || !maps.Equal(got.CriticalOptions, p.CriticalOptions) {
			t.Errorf("%s: %+v, want %+v", what, got, p)
		}
	}
}

func TestGuestCertificateNamesTheIdentity(t *testing.T) {
	ca := newSigner(t)
	named := FullPermissions()
	named.Extensions[ExtIdentity] = "from-permissions"
	for _, c := range []struct {
		id   string
		p    *ssh.Permissions
		want string
	}{
		{"bob", named, "bob"},
		{"", named, "from-permissions"},
		{"b\x1bob\n", FullPermissions(), "bob"},
	} {
		cert, err := IssueGuestCertificate(ca, Identity{Name: c.id}, someTask, c.p, noon, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		p, err := CheckGuestCertificate(cert.Marshal(), ca.PublicKey(), someTask, someAddr, noon)
		if err != nil || cert.KeyId != c.want || IdentityName(p) != c.want {
			t.Errorf("%q: %q, %v, want %q", c.id, cert.KeyId, err, c.want)
		}
	}
}

func TestGuestCertificateIsNotIssued(t *testing.T) {
	ca := newSigner(t)
	emptyForce, unknown, long := FullPermissions(), FullPermissions(), FullPermissions()
	emptyForce.CriticalOptions[ForceCommand] = ""
	unknown.CriticalOptions["verify-required"] = ""
	long.CriticalOptions[ForceCommand] = strings.Repeat("x", maxGuestCertificate)
	nested := newSigner(t)
	certSigner, err := ssh.NewCertSigner(signedBy(t, ca, nested.PublicKey()), nested)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		ca   ssh.Signer
		name string
		task TaskID
		p    *ssh.Permissions
		ttl  time.Duration
	}{
		"no CA":                     {nil, "a", someTask, FullPermissions(), time.Minute},
		"a certificate as CA":       {certSigner, "a", someTask, FullPermissions(), time.Minute},
		"no name":                   {ca, "", someTask, FullPermissions(), time.Minute},
		"a name of nothing visible": {ca, "\x00\u200b", someTask, FullPermissions(), time.Minute},
		"no task":                   {ca, "a", "", FullPermissions(), time.Minute},
		"a task that is none":       {ca, "a", "Task 1", FullPermissions(), time.Minute},
		"nil permissions":           {ca, "a", someTask, nil, time.Minute},
		"empty forced command":      {ca, "a", someTask, emptyForce, time.Minute},
		"unknown critical option":   {ca, "a", someTask, unknown, time.Minute},
		"too long":                  {ca, "a", someTask, long, time.Minute},
		"no time to live":           {ca, "a", someTask, FullPermissions(), 0},
		"negative time to live":     {ca, "a", someTask, FullPermissions(), -time.Minute},
	} {
		if cert, err := IssueGuestCertificate(c.ca, Identity{Name: c.name}, c.task, c.p, noon, c.ttl); err == nil || cert != nil {
			t.Errorf("%s: %v, %v", what, cert, err)
		}
	}
}

func signedBy(t testing.TB, ca ssh.Signer, key ssh.PublicKey) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{Key: key, CertType: ssh.UserCert, KeyId: "alice", ValidPrincipals: []string{string(someTask)}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(zeroReader{}, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestGuestCertificateValidity(t *testing.T) {
	ca := newSigner(t)
	raw := issueForTest(t, ca, FullPermissions()).Marshal()
	for offset, want := range map[time.Duration]bool{
		-time.Hour:                     false,
		-61 * time.Second:              false,
		-time.Minute:                   true,
		0:                              true,
		5*time.Minute - time.Second:    true,
		5 * time.Minute:                false,
		100 * 365 * 24 * time.Hour:     false,
		-60 * 365 * 24 * time.Hour:     false,
		-5000 * 365 * 24 * time.Minute: false,
	} {
		_, err := CheckGuestCertificate(raw, ca.PublicKey(), someTask, someAddr, noon.Add(offset))
		if (err == nil) != want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%v after its issue: %v, want valid %v", offset, err, want)
		}
	}
}

func TestGuestCertificateSourceAddress(t *testing.T) {
	ca := newSigner(t)
	for _, c := range []struct {
		value, addr string
		want        bool
	}{
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "::ffff:10.1.2.3", true},
		{"10.0.0.0/8", "11.1.2.3", false},
		{"10.0.0.0/8,2001:db8::1", "2001:db8::1", true},
		{"10.1.2.3", "10.1.2.3", true},
		{"", "10.1.2.3", false},
		{"!11.0.0.0/8", "10.1.2.3", false},
		{"10.*", "10.1.2.3", false},
		{"10.0.0.0/8,oops", "10.1.2.3", false},
		{"build.example.com", "10.1.2.3", false},
	} {
		p := FullPermissions()
		p.CriticalOptions[SourceAddress] = c.value
		raw := issueForTest(t, ca, p).Marshal()
		_, err := CheckGuestCertificate(raw, ca.PublicKey(), someTask, netip.MustParseAddr(c.addr), noon)
		if (err == nil) != c.want {
			t.Errorf("%s from %q: %v, want valid %v", c.addr, c.value, err, c.want)
		}
		if _, err := CheckGuestCertificate(raw, ca.PublicKey(), someTask, netip.Addr{}, noon); err == nil {
			t.Errorf("an unknown address from %q is let in", c.value)
		}
	}
}

// forge changes a certificate and signs it again, as the CA would have to be
// made to.
func forge(t testing.TB, ca ssh.Signer, change func(c *ssh.Certificate)) []byte {
	t.Helper()
	cert := issueForTest(t, ca, FullPermissions())
	change(cert)
	if err := cert.SignCert(zeroReader{}, ca); err != nil {
		t.Fatal(err)
	}
	return cert.Marshal()
}

func TestGuestCertificateIsRefused(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	good := issueForTest(t, ca, FullPermissions())
	if _, err := CheckGuestCertificate(good.Marshal(), ca.PublicKey(), someTask, someAddr, noon); err != nil {
		t.Fatal(err)
	}
	altered := *good
	altered.Permissions = *FullPermissions()
	altered.Extensions["permit-everything@example.com"] = ""
	unsigned := *good
	unsigned.Signature = &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)}
	nested := *good
	nested.SignatureKey = signedBy(t, other, ca.PublicKey())
	claimed := *issueForTest(t, other, FullPermissions())
	claimed.SignatureKey = ca.PublicKey()
	for what, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":                   {nil, ""},
		"junk":                      {[]byte("ssh-ed25519-cert-v01@openssh.com"), ""},
		"cut off":                   {good.Marshal()[:200], ""},
		"trailing bytes":            {append(good.Marshal(), 0), ""},
		"huge":                      {make([]byte, maxGuestCertificate+1), "bytes long"},
		"a plain key":               {ca.PublicKey().Marshal(), "no certificate"},
		"by another CA":             {issueForTest(t, other, FullPermissions()).Marshal(), "not signed by"},
		"by another CA, claimed":    {claimed.Marshal(), "signature"},
		"altered":                   {altered.Marshal(), "signature"},
		"unsigned":                  {unsigned.Marshal(), "signature"},
		"signed by a certificate":   {nested.Marshal(), "invalid for certificates"},
		"a type of two lines":       {ssh.Marshal(struct{ Type string }{"a\nlevel=ERROR" + strings.Repeat("x", 1000)}), "unknown key algorithm"},
		"for very many tasks":       {forge(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = strings.Split(strings.Repeat("x,", 500), ",") }), "not for task"},
		"a host certificate":        {forge(t, ca, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), "certificate type is 2"},
		"neither user nor host":     {forge(t, ca, func(c *ssh.Certificate) { c.CertType = 0 }), "certificate type is 0"},
		"for anybody":               {forge(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = nil }), "not for task"},
		"for another task":          {forge(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"task-1"} }), "not for task"},
		"for two tasks":             {forge(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{string(someTask), "x"} }), "not for task"},
		"of nobody":                 {forge(t, ca, func(c *ssh.Certificate) { c.KeyId = "" }), "key ID"},
		"of \\x1b":                  {forge(t, ca, func(c *ssh.Certificate) { c.KeyId = "a\x1b[2J" }), "key ID"},
		"an unknown option":         {forge(t, ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"verify-required": ""} }), "verify-required"},
		"an empty forced command":   {forge(t, ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{ForceCommand: ""} }), "empty"},
		"valid from the far future": {forge(t, ca, func(c *ssh.Certificate) { c.ValidAfter = 1 << 63 }), "not yet valid"},
	} {
		p, err := CheckGuestCertificate(c.raw, ca.PublicKey(), someTask, someAddr, noon)
		if !errors.Is(err, ErrDenied) || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want ErrDenied and %q", what, p, err, c.want)
			continue
		}
		testenv.CheckText(t, err)
	}
	raw := good.Marshal()
	if _, err := CheckGuestCertificate(raw, nil, someTask, someAddr, noon); !errors.Is(err, ErrDenied) {
		t.Errorf("no CA: %v", err)
	}
	for _, task := range []TaskID{"", "task-12345", "TASK-1234"} {
		if _, err := CheckGuestCertificate(raw, ca.PublicKey(), task, someAddr, noon); !errors.Is(err, ErrDenied) {
			t.Errorf("task %q: %v", task, err)
		}
	}
}

// What OpenSSH adds later may permit something there; here it does not until
// the table knows it.
func TestUnknownExtensionsAreDropped(t *testing.T) {
	ca := newSigner(t)
	p := FullPermissions()
	p.Extensions["no-touch-required"] = ""
	p.Extensions["permit-user-rc"] = ""
	if cert := issueForTest(t, ca, p); len(cert.Extensions) != len(permissionNames) {
		t.Errorf("issued with %v", cert.Extensions)
	}
	raw := forge(t, ca, func(c *ssh.Certificate) { c.Extensions["permit-user-rc"], c.Extensions[ExtIdentity] = "", "mallory" })
	got, err := CheckGuestCertificate(raw, ca.PublicKey(), someTask, someAddr, noon)
	if err != nil || IdentityName(got) != "alice@example.com" || len(got.Extensions) != len(permissionNames)+1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A certificate that leaks must not sign anybody in: nobody can have the key
// that it is for.
func TestGuestCertificateOpensNothingByItself(t *testing.T) {
	ca, guest := newSigner(t), newSigner(t)
	id := Identity{Name: "alice", Key: guest.PublicKey()}
	seen := map[string]bool{string(ca.PublicKey().Marshal()): true, string(guest.PublicKey().Marshal()): true}
	for range 3 {
		cert, err := IssueGuestCertificate(ca, id, someTask, FullPermissions(), noon, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		key := string(cert.Key.Marshal())
		if seen[key] {
			t.Error("the key of a certificate is the guest's, the CA's, or an earlier one's")
		}
		seen[key] = true
	}
}

// ssh-keygen -L reads in our certificates what we put there.
func TestGuestCertificateUnderSSHKeygen(t *testing.T) {
	t.Setenv("TZ", "UTC")
	dir := t.TempDir()
	ca := newSigner(t)
	cert := issueForTest(t, ca, restrictedPermissions())
	writeFile(t, 0o600, ssh.MarshalAuthorizedKey(cert), dir, "cert.pub")
	var got []string
	for l := range strings.Lines(keygen(t, dir, "-L", "-f", "cert.pub")) {
		got = append(got, strings.TrimSpace(l))
	}
	unknown := func(name string) string {
		for _, l := range got {
			if strings.HasPrefix(l, name+" UNKNOWN ") {
				return l
			}
		}
		return name + " as an unknown option"
	}
	want := []string{
		"cert.pub:",
		"Type: ssh-ed25519-cert-v01@openssh.com user certificate",
		"Public key: ED25519-CERT " + ssh.FingerprintSHA256(cert.Key),
		"Signing CA: ED25519 " + ssh.FingerprintSHA256(ca.PublicKey()) + " (using ssh-ed25519)",
		`Key ID: "alice@example.com"`,
		"Serial: 0",
		"Valid: from 2026-03-01T11:59:00 to 2026-03-01T12:05:00",
		"Principals:",
		string(someTask),
		"Critical Options:",
		"force-command make test",
		unknown("permitlisten@stagedoor"),
		unknown("permitopen@stagedoor"),
		"source-address 10.0.0.0/8,::1/128",
		"Extensions:",
		unknown("permit-exec@stagedoor"),
		"permit-pty",
	}
	if !slices.Equal(got, want) {
		t.Errorf("ssh-keygen -L says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Certificates that ssh-keygen signs are read as ssh-keygen means them.
func TestCertificatesMadeBySSHKeygen(t *testing.T) {
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "ca")
	keygen(t, dir, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "user")
	ca := parsePublicKey(t, readFile(t, dir, "ca.pub"))
	for what, c := range map[string]struct {
		args []string
		want string // part of the error
	}{
		"plain":                   {[]string{"-I", "alice", "-n", "task-1234"}, ""},
		"narrow":                  {[]string{"-I", "alice", "-n", "task-1234", "-O", "clear", "-O", "permit-pty", "-O", "force-command=make", "-O", "source-address=10.0.0.0/8"}, ""},
		"elsewhere":               {[]string{"-I", "alice", "-n", "task-1234", "-O", "source-address=192.168.0.0/16"}, "source-address"},
		"without principals":      {[]string{"-I", "alice"}, "not for task"},
		"two principals":          {[]string{"-I", "alice", "-n", "task-1234,root"}, "not for task"},
		"host":                    {[]string{"-I", "alice", "-n", "task-1234", "-h"}, "certificate type"},
		"expired":                 {[]string{"-I", "alice", "-n", "task-1234", "-V", "20200101:20200102"}, "expired"},
		"not yet":                 {[]string{"-I", "alice", "-n", "task-1234", "-V", "20990101:20990102"}, "not yet"},
		"verify-required":         {[]string{"-I", "alice", "-n", "task-1234", "-O", "verify-required"}, "verify-required"},
		"unknown critical option": {[]string{"-I", "alice", "-n", "task-1234", "-O", "critical:new@example.com=x"}, "new@example.com"},
		"unknown extension":       {[]string{"-I", "alice", "-n", "task-1234", "-O", "extension:new@example.com=x"}, ""},
	} {
		keygen(t, dir, append(append([]string{"-q", "-s", "ca"}, c.args...), "user.pub")...)
		raw := parsePublicKey(t, readFile(t, dir, "user-cert.pub")).Marshal()
		p, err := CheckGuestCertificate(raw, ca, someTask, someAddr, time.Now())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", what, p, err, c.want)
		}
		if what == "narrow" && (len(p.Extensions) != 2 || p.CriticalOptions[ForceCommand] != "make") {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// The fuzzer cannot sign, so whatever reads as a certificate is signed for it:
// past the signature it has to hold too.
func FuzzCheckGuestCertificate(f *testing.F) {
	ca, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))) // the same in all workers
	if err != nil {
		f.Fatal(err)
	}
	f.Add(issueForTest(f, ca, FullPermissions()).Marshal())
	f.Add(issueForTest(f, ca, restrictedPermissions()).Marshal())
	f.Add(signedBy(f, ca, newSigner(f).PublicKey()).Marshal())
	f.Add(issueForTest(f, newSigner(f), FullPermissions()).Marshal())
	f.Add(ca.PublicKey().Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		checkFuzzed(t, ca, raw)
		key, err := ssh.ParsePublicKey(raw)
		if err != nil {
			return
		}
		if cert, ok := key.(*ssh.Certificate); ok && cert.SignCert(zeroReader{}, ca) == nil {
			checkFuzzed(t, ca, cert.Marshal())
		}
	})
}

func checkFuzzed(t *testing.T, ca ssh.Signer, raw []byte) {
	p, err := CheckGuestCertificate(raw, ca.PublicKey(), someTask, someAddr, noon)
	if err != nil {
		testenv.CheckText(t, err)
		if !errors.Is(err, ErrDenied) || p != nil {
			t.Fatalf("%v, %v", p, err)
		}
		return
	}
	key, err := ssh.ParsePublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	cert := key.(*ssh.Certificate)
	if cert.CertType != ssh.UserCert || !slices.Equal(cert.ValidPrincipals, []string{string(someTask)}) || uint64(noon.Unix()) < cert.ValidAfter || uint64(noon.Unix()) >= cert.ValidBefore {
		t.Fatalf("accepted %+v", cert)
	}
	if usable(p) != nil || IdentityName(p) != cert.KeyId || len(p.CriticalOptions) != len(cert.CriticalOptions) {
		t.Fatalf("%+v from %+v", p, cert)
	}
	for name := range p.Extensions {
		if _, ok := cert.Extensions[name]; !ok && name != ExtIdentity {
			t.Fatalf("%s is permitted by %+v", name, cert)
		}
	}
}
