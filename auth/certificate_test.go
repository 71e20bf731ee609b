package auth

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func readPublicKey(t testing.TB, dir, name string) ssh.PublicKey {
	t.Helper()
	return parsePublicKey(t, readFile(t, dir, name+".pub"))
}

// signByKeygen has ssh-keygen sign key with a CA in dir, with more flags.
func signByKeygen(t testing.TB, dir, ca string, key ssh.PublicKey, flags ...string) *ssh.Certificate {
	t.Helper()
	here := t.TempDir()
	writeFile(t, 0o600, []byte(line(key, "key")+"\n"), here, "key.pub")
	keygen(t, here, append(append([]string{"-q", "-s", filepath.Join(dir, ca), "-I", "alice@example.com"}, flags...), "key.pub")...)
	return parsePublicKey(t, readFile(t, here, "key-cert.pub")).(*ssh.Certificate)
}

func certSigner(t testing.TB, dir, ca string, signer ssh.Signer, flags string) ssh.Signer {
	t.Helper()
	s, err := ssh.NewCertSigner(signByKeygen(t, dir, ca, signer.PublicKey(), strings.Fields(flags)...), signer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// userCertificate is one that the CA of a company would make, before change.
func userCertificate(t testing.TB, ca ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key:             newSigner(t).PublicKey(),
		CertType:        ssh.UserCert,
		KeyId:           "alice@example.com",
		ValidPrincipals: []string{string(someTask)},
		ValidAfter:      uint64(noon.Add(-time.Hour).Unix()),
		ValidBefore:     uint64(noon.Add(time.Hour).Unix()),
		Permissions:     ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{PermitPTY: "", PermitPortForwarding: ""}},
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(zeroReader{}, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func grantTo(ca ssh.PublicKey, options string) *Grant {
	return &Grant{AuthorizedKeys: []string{"cert-authority" + options + " " + line(ca, "CA")}}
}

// permits lists what permissions permit.
func permits(p *ssh.Permissions) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(p.Extensions)), func(name string) bool { return name == ExtIdentity })
}

// What a certificate of a company's CA permits, as ssh-keygen makes it.
func TestWhatCertificatesPermit(t *testing.T) {
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "ca")
	everything := slices.Sorted(slices.Values([]string{PermitPTY, PermitPortForwarding, PermitAgentForwarding, PermitX11Forwarding, PermitExec, PermitSFTP}))
	for _, c := range []struct {
		flags, options string
		want           []string
	}{
		{"", "", everything},
		{"-O clear", "", []string{PermitExec, PermitSFTP}},
		{"-O no-pty -O no-x11-forwarding", "", []string{PermitAgentForwarding, PermitExec, PermitPortForwarding, PermitSFTP}},
		{"-O clear -O permit-pty -O extension:something@example.com", "", []string{PermitExec, PermitPTY, PermitSFTP}},
		{"-O clear -O extension:permit-sftp@stagedoor", "", []string{PermitSFTP}},
		{"-O extension:permit-exec@stagedoor -O no-port-forwarding", "", []string{PermitAgentForwarding, PermitExec, PermitPTY, PermitX11Forwarding}},
		{"-O clear -O extension:permit-shell@stagedoor", "", nil}, // not known here: taken by its word
		{"-O clear -O extension:permit-control@stagedoor", "", []string{PermitControl}},
		{"-O clear -O extension:permit-gateway-ports@stagedoor", "", nil}, // the grant does not give it
		{"", ",restrict,pty", []string{PermitExec, PermitPTY, PermitSFTP}},
		{"-O clear -O extension:identity@stagedoor=root", "", nil},
	} {
		cert := signByKeygen(t, dir, "ca", newSigner(t).PublicKey(), append([]string{"-n", "other," + string(someTask)}, strings.Fields(c.flags)...)...)
		p, err := authorizeByGrant(t, grantTo(readPublicKey(t, dir, "ca"), c.options), Identity{Key: cert}, noon)
		if err != nil || !slices.Equal(permits(p), slices.Sorted(slices.Values(c.want))) || IdentityName(p) != "alice@example.com" {
			t.Errorf("%q %q: %v, %v, want %v", c.flags, c.options, p, err, c.want)
		}
	}
}

func TestCertificatesThatAreRefused(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	option := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions[name] = value }
	}
	for what, c := range map[string]struct {
		change  func(*ssh.Certificate)
		options string
		want    string // part of the error; empty: let in
	}{
		"good":                    {nil, "", ""},
		"for another task":        {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"task-1", "TASK-1234", "task-1234 "} }, "", "and not [\""},
		"for a pattern":           {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*", "task-*"} }, "", "and not [\""},
		"for anybody":             {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "", "no principals"},
		"for anybody, by list":    {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, `,principals="a"`, "no principals"},
		"for nobody":              {func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} }, "", "and not [\""},
		"for the task, not on it": {nil, `,principals="alice"`, "and not [\""},
		"for one on the line":     {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"x", "bob"} }, `,principals="alice,bob"`, ""},
		"of a host":               {func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "", "it is a host certificate"},
		"of no type":              {func(c *ssh.Certificate) { c.CertType = 0 }, "", "a type 0 certificate"},
		"not yet valid":           {func(c *ssh.Certificate) { c.ValidAfter = uint64(noon.Unix()) + 1 }, "", "not yet valid, but from 2026-03-01T12:00:01Z"},
		"valid from now":          {func(c *ssh.Certificate) { c.ValidAfter = uint64(noon.Unix()) }, "", ""},
		"expired":                 {func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Unix()) }, "", "expired at 2026-03-01T12:00:00Z"},
		"valid for a second more": {func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Unix()) + 1 }, "", ""},
		"valid for ever":          {func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, "", ""},
		"times wrapped around":    {func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 1<<63, 1<<64-2 }, "", "valid"},
		"of a weak key":           {func(c *ssh.Certificate) { c.Key = rsaOf(t, 1024) }, "", "1024 bits"},
		"verify-required":         {option("verify-required", ""), "", "PIN"},
		"unknown critical option": {option("new@example.com", "x"), "", "not supported"},
		"empty forced command":    {option(ForceCommand, ""), "", "is empty"},
		"another forced command":  {option(ForceCommand, "a"), `,command="b"`, "different commands"},
		"the same forced command": {option(ForceCommand, "a"), `,command="a"`, ""},
		"from elsewhere":          {option(SourceAddress, "10.0.0.0/8"), "", "does not list"},
		"from here":               {option(SourceAddress, "10.0.0.0/8,192.0.2.1"), "", ""},
		"from something":          {option(SourceAddress, "192.0.2.1,here"), "", "not an IP address"},
		"from here, and not here": {option(SourceAddress, "192.0.2.1"), `,from="10.*"`, "from="},
		"on an expired line":      {nil, `,expiry-time="20260301Z"`, "expiry-time"},
	} {
		cert := userCertificate(t, ca, c.change)
		p, err := authorizeByGrant(t, grantTo(ca.PublicKey(), c.options), Identity{Key: cert, Remote: from("192.0.2.1")}, noon)
		if c.want == "" {
			if err != nil || p == nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if !errors.Is(err, ErrDenied) || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", what, p, err, c.want)
		}
	}

	good := userCertificate(t, ca, nil)
	forged := *good
	forged.ValidBefore++
	swapped := *userCertificate(t, other, nil)
	swapped.SignatureKey = ca.PublicKey()
	unsigned := *good
	unsigned.Signature = nil
	for what, key := range map[string]ssh.PublicKey{
		"the authority itself":     ca.PublicKey(),
		"the certificate's key":    good.Key,
		"another authority":        userCertificate(t, other, nil),
		"changed after signing":    &forged,
		"signed by somebody else":  &swapped,
		"not signed":               &unsigned,
		"a nil certificate":        (*ssh.Certificate)(nil),
		"an empty certificate":     &ssh.Certificate{},
		"a certificate of another": &ssh.Certificate{Key: good, SignatureKey: ca.PublicKey()},
	} {
		if p, err := authorizeByGrant(t, grantTo(ca.PublicKey(), ""), Identity{Key: key}, noon); !errors.Is(err, ErrDenied) || p != nil {
			t.Errorf("%s: %v, %v", what, p, err)
		}
	}
	// A plain line is about the key alone.
	for _, listed := range []ssh.PublicKey{good.Key, ca.PublicKey()} {
		if _, err := authorizeByGrant(t, &Grant{AuthorizedKeys: []string{line(listed, "")}}, Identity{Key: good}, noon); !errors.Is(err, ErrDenied) {
			t.Errorf("a plain line admits a certificate: %v", err)
		}
	}
}

// The task that a certificate names is the one that its holder enters, also by
// the files of an operator, which open every task.
func TestCertificateOpensItsTaskAlone(t *testing.T) {
	ca := newSigner(t)
	keys, err := ParseAuthorizedKeys("keys", []byte("cert-authority "+line(ca.PublicKey(), "CA")+"\ncert-authority,principals=\"ops\" "+line(ca.PublicKey(), "CA")))
	if err != nil {
		t.Fatal(err)
	}
	keys.Now = at(noon)
	for task, want := range map[TaskID]bool{someTask: true, "task-1": false, "": false, "ops": false} {
		if _, err := keys.Authorize(t.Context(), Identity{Key: userCertificate(t, ca, nil)}, Task{ID: task}); (err == nil) != want {
			t.Errorf("task %q: %v", task, err)
		}
	}
	operator := userCertificate(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ops"} })
	nobody := userCertificate(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} })
	if _, err := keys.Authorize(t.Context(), Identity{Key: nobody}, Task{}); !errors.Is(err, ErrDenied) {
		t.Errorf("no name is taken for one: %v", err)
	}
	for _, task := range []TaskID{someTask, "task-1", ""} {
		if _, err := keys.Authorize(t.Context(), Identity{Key: operator}, Task{ID: task}); err != nil {
			t.Errorf("an operator at task %q: %v", task, err)
		}
	}
	if got := keys.PublicKeys(); len(got) != 2 || got[0].Type() != ssh.KeyAlgoED25519 {
		t.Errorf("keys to look for: %v", got)
	}
}

func TestCertificateSignedWithSHA1(t *testing.T) {
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "ca")
	for hash, want := range map[string]bool{"rsa-sha2-256": true, "rsa-sha2-512": true, "ssh-rsa": false} {
		cert := signByKeygen(t, dir, "ca", newSigner(t).PublicKey(), "-n", string(someTask), "-t", hash)
		_, err := authorizeByGrant(t, grantTo(readPublicKey(t, dir, "ca"), ""), Identity{Key: cert}, noon)
		if (err == nil) != want {
			t.Errorf("%s: %v", hash, err)
		}
	}
}

// The touch of a security key is waived when both line and certificate say so. A
// certificate that does so alone is refused: x/crypto would ask for no touch.
func TestCertificateOfASecurityKey(t *testing.T) {
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ecdsa", "-N", "", "-f", "ca")
	ca := readPublicKey(t, dir, "ca")
	for _, keyType := range []string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256} {
		for _, c := range []struct {
			options        string
			flags          []string
			enters, waived bool
		}{
			{"", nil, true, false},
			{",no-touch-required", nil, true, false},
			{"", []string{"-O", "no-touch-required"}, false, false},
			{",no-touch-required", []string{"-O", "no-touch-required"}, true, true},
		} {
			cert := signByKeygen(t, dir, "ca", securityKey(t, keyType), append([]string{"-n", string(someTask)}, c.flags...)...)
			p, err := authorizeByGrant(t, grantTo(ca, c.options), Identity{Key: cert}, noon)
			if (err == nil) != c.enters {
				t.Errorf("%s, %q, %v: %v", keyType, c.options, c.flags, err)
			}
			if err != nil {
				continue
			}
			if _, ok := p.Extensions["no-touch-required"]; ok != c.waived {
				t.Errorf("%s, %q, %v: waived is %v", keyType, c.options, c.flags, ok)
			}
		}
	}
}

// A key ID ends up where comments do.
func TestCertificateNamesTheIdentity(t *testing.T) {
	ca := newSigner(t)
	for id, want := range map[string]string{
		"alice@example.com":      "alice@example.com",
		"\x1b[31mroot\n\u202e":   "[31mroot",
		strings.Repeat("x", 300): strings.Repeat("x", 128),
		"":                       "SHA256:",
		"\x00\x01":               "SHA256:",
	} {
		cert := userCertificate(t, ca, func(c *ssh.Certificate) { c.KeyId = id })
		p, err := authorizeByGrant(t, grantTo(ca.PublicKey(), ""), Identity{Key: cert}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if want == "SHA256:" {
			want = ssh.FingerprintSHA256(cert.Key)
		}
		if IdentityName(p) != want {
			t.Errorf("%q is named %q", id, IdentityName(p))
		}
	}
}

// A gateway passes on to the agent what a certificate permits.
func TestCertificatePermissionsTravel(t *testing.T) {
	ca, gateway := newSigner(t), newSigner(t)
	cert := userCertificate(t, ca, func(c *ssh.Certificate) {
		c.CriticalOptions[SourceAddress] = "192.0.2.1"
		c.CriticalOptions[ForceCommand] = "make"
		c.CriticalOptions[PermitOpen] = "db:5432"
	})
	g := grantTo(ca.PublicKey(), "")
	g.PermitOpen = []string{"localhost:*"}
	p, err := authorizeByGrant(t, g, Identity{Key: cert, Remote: from("192.0.2.1")}, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ForceCommand: "make", PermitOpen: "db:5432;localhost:*"}
	if !maps.Equal(p.CriticalOptions, want) {
		t.Errorf("%v, want %v", p.CriticalOptions, want)
	}
	guest, err := IssueGuestCertificate(gateway, Identity{}, someTask, p, noon, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	again, err := CheckGuestCertificate(guest.Marshal(), gateway.PublicKey(), someTask, someAddr, noon)
	if err != nil || !maps.Equal(again.Extensions, p.Extensions) || !maps.Equal(again.CriticalOptions, want) {
		t.Errorf("%v, %v", again, err)
	}
}

// Only what the authority signed gets in, whatever else is offered.
func FuzzUserCertificate(f *testing.F) {
	ca := newSigner(f)
	good := map[string]bool{}
	for _, change := range []func(*ssh.Certificate){
		nil,
		func(c *ssh.Certificate) { c.CriticalOptions[SourceAddress] = "192.0.2.0/24" },
		func(c *ssh.Certificate) { c.Extensions["permit-sftp@stagedoor"] = "" },
	} {
		raw := userCertificate(f, ca, change).Marshal()
		good[string(raw)] = true
		f.Add(raw)
	}
	f.Add(userCertificate(f, newSigner(f), nil).Marshal())
	f.Add([]byte("\x00\x00\x00\x20ssh-ed25519-cert-v01@openssh.com"))
	g := grantTo(ca.PublicKey(), "")
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, err := ssh.ParsePublicKey(raw)
		if err != nil {
			return
		}
		p, err := authorizeByGrant(t, g, Identity{Key: key, Remote: from("192.0.2.1")}, noon)
		if err != nil {
			testenv.CheckText(t, err)
			if !errors.Is(err, ErrDenied) || p != nil {
				t.Fatalf("%v, %v", p, err)
			}
			return
		}
		if !good[string(key.Marshal())] || usable(p) != nil || IdentityName(p) != "alice@example.com" {
			t.Fatalf("a certificate that nobody signed is let in: %+v", p)
		}
	})
}

// TestDescribeUserCertificate: what the holder is told is in the certificate.
func TestDescribeUserCertificate(t *testing.T) {
	ca := newSigner(t)
	here := from("192.0.2.1").Addr()
	for want, change := range map[string]func(*ssh.Certificate){
		`it lists the principals ["task-1234"]`:                                     nil,
		"it expired at 2026-03-01T11:59:00Z, the time here is 2026-03-01T12:00:00Z": func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Add(-time.Minute).Unix()) },
		"it is not yet valid, but from 2026-03-01T12:01:00Z":                        func(c *ssh.Certificate) { c.ValidAfter = uint64(noon.Add(time.Minute).Unix()) },
		"it is not yet valid, but from a time beyond":                               func(c *ssh.Certificate) { c.ValidAfter = 1 << 60 },
		"it is a host certificate":                                                  func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
		"it names no principals":                                                    func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		"new@example.com":                                                           func(c *ssh.Certificate) { c.CriticalOptions["new@example.com"] = "" },
		"source-address does not list 192.0.2.1":                                    func(c *ssh.Certificate) { c.CriticalOptions[SourceAddress] = "10.0.0.0/8" },
	} {
		cert := userCertificate(t, ca, change)
		if got := DescribeUserCertificate(cert, here, noon); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	long := userCertificate(t, ca, func(c *ssh.Certificate) {
		c.KeyId = "a\x1b[2J\"" + strings.Repeat("ä", 500)
		c.ValidPrincipals = slices.Repeat([]string{"\x1b]0;" + strings.Repeat("x", 300)}, 50)
	})
	for _, got := range []string{DescribeUserCertificate(long, here, noon), DescribeKey(long)} {
		testenv.CheckText(t, errors.New(got))
	}
	if got, print := DescribeKey(long), ssh.FingerprintSHA256(long.Key); !strings.HasPrefix(got, print+` (certificate "a[2J\"`) {
		t.Errorf("described as %q", got)
	}
}
