package auth

import (
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// securityKey makes the public half of a key that only a security key could
// sign with (PROTOCOL.u2f).
func securityKey(t testing.TB, keyType string) ssh.PublicKey {
	t.Helper()
	var wire []byte
	switch keyType {
	case ssh.KeyAlgoSKED25519:
		wire = ssh.Marshal(struct {
			Type, Key, Application string
		}{keyType, string(publicOf(newKey(t))), "ssh:"})
	case ssh.KeyAlgoSKECDSA256:
		p := elliptic.P256().Params()
		wire = ssh.Marshal(struct {
			Type, Curve, Point, Application string
		}{keyType, "nistp256", string(uncompressed(p.Gx, p.Gy)), "ssh:"})
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func uncompressed(x, y *big.Int) []byte {
	point := append([]byte{4}, x.FillBytes(make([]byte, 32))...)
	return append(point, y.FillBytes(make([]byte, 32))...)
}

func TestKeysMadeBySSHKeygen(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want string // part of the error
	}{
		{[]string{"-t", "ed25519"}, ""},
		{[]string{"-t", "ecdsa", "-b", "256"}, ""},
		{[]string{"-t", "ecdsa", "-b", "384"}, ""},
		{[]string{"-t", "ecdsa", "-b", "521"}, ""},
		{[]string{"-t", "rsa", "-b", "2048"}, ""},
		{[]string{"-t", "rsa", "-b", "1024"}, "1024 bits"},
	} {
		name := strings.Join(c.args, "")
		keygen(t, dir, append(c.args, "-q", "-N", "", "-C", "alice@example.com", "-f", name)...)
		data := readFile(t, dir, name+".pub")
		keys, err := ParseAuthorizedKeys("keys", data)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), "keys:1: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want line 1 and %q", name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, err := keys.Authorize(t.Context(), Identity{Key: parsePublicKey(t, data)}, Task{})
		if err != nil || IdentityName(p) != "alice@example.com" {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

func TestSecurityKeys(t *testing.T) {
	dir := t.TempDir()
	for _, keyType := range []string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256} {
		key := securityKey(t, keyType)
		writeFile(t, 0o600, []byte(line(key, "token")+"\n"), dir, "key.pub")
		if out := keygen(t, dir, "-l", "-f", "key.pub"); !strings.Contains(out, ssh.FingerprintSHA256(key)) {
			t.Fatalf("ssh-keygen reads the test's %s key differently: %s", keyType, out)
		}
		for options, noTouch := range map[string]bool{"": false, "no-touch-required ": true, "no-touch-required,touch-required ": false} {
			keys, err := ParseAuthorizedKeys("keys", []byte(options+line(key, "token")))
			if err != nil {
				t.Fatalf("%s: %v", keyType, err)
			}
			p, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{})
			if err != nil {
				t.Fatalf("%s: %v", keyType, err)
			}
			if _, ok := p.Extensions["no-touch-required"]; ok != noTouch {
				t.Errorf("%q: touch waived is %v, want %v", options, ok, noTouch)
			}
		}
	}
}

func parseOne(t testing.TB, options string) (*AuthorizedKeys, ssh.PublicKey, error) {
	t.Helper()
	key := newSigner(t).PublicKey()
	keys, err := ParseAuthorizedKeys("keys", []byte(options+" "+line(key, "alice")))
	return keys, key, err
}

func TestOptionsThatSwitch(t *testing.T) {
	all := slices.DeleteFunc(slices.Clone(permissionNames), func(s string) bool { return s == PermitGatewayPorts })
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(names, s) })
	}
	for options, want := range map[string][]string{
		"":                                 all,
		"no-pty":                           without(PermitPTY),
		"NO-PTY":                           without(PermitPTY),
		"no-port-forwarding":               without(PermitPortForwarding),
		"no-agent-forwarding":              without(PermitAgentForwarding),
		"no-x11-forwarding":                without(PermitX11Forwarding),
		"no-X11-forwarding,no-pty":         without(PermitX11Forwarding, PermitPTY),
		"restrict":                         {PermitExec, PermitSFTP},
		"restrict,pty":                     {PermitPTY, PermitExec, PermitSFTP},
		"pty,restrict":                     {PermitExec, PermitSFTP},
		"restrict,port-forwarding":         {PermitPortForwarding, PermitExec, PermitSFTP},
		"restrict,agent-forwarding":        {PermitAgentForwarding, PermitExec, PermitSFTP},
		"restrict,X11-forwarding":          {PermitX11Forwarding, PermitExec, PermitSFTP},
		"no-pty,pty":                       all,
		"gateway-ports":                    append(slices.Clone(all), PermitGatewayPorts),
		"gateway-ports,no-gateway-ports":   all,
		"gateway-ports,restrict":           {PermitExec, PermitSFTP},
		"restrict,gateway-ports":           {PermitExec, PermitSFTP, PermitGatewayPorts},
		",,no-pty,":                        without(PermitPTY),
		"user-rc,no-user-rc":               all,
		"tunnel=\"0\"":                     all,
		"no-verify-required":               all,
		"restrict,command=\"a, b\",no-pty": {PermitExec, PermitSFTP},
	} {
		keys, key, err := parseOne(t, options)
		if err != nil {
			t.Errorf("%q: %v", options, err)
			continue
		}
		p, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{})
		if err != nil {
			t.Errorf("%q: %v", options, err)
			continue
		}
		for _, name := range permissionNames {
			if _, ok := p.Extensions[name]; ok != slices.Contains(want, name) {
				t.Errorf("%q: %s is %v", options, name, ok)
			}
		}
	}
}

func TestOptionsWithValues(t *testing.T) {
	for options, want := range map[string][2]string{
		`command="echo hi"`:                                          {ForceCommand, "echo hi"},
		`COMMAND="echo hi"`:                                          {ForceCommand, "echo hi"},
		`command="echo \"a, b\" # c"`:                                {ForceCommand, `echo "a, b" # c`},
		`command="a\b\\"`:                                            {ForceCommand, ""}, // see below: \" at the end does not close
		`permitopen="localhost:80"`:                                  {PermitOpen, "localhost:80"},
		`permitopen="localhost:80",permitopen="[::1]:*"`:             {PermitOpen, "localhost:80,[::1]:*"},
		`permitopen="*:80"`:                                          {PermitOpen, "*:80"},
		`permitlisten="8080"`:                                        {PermitListen, "*:8080"},
		`permitlisten="LocalHost:8080",no-pty,permitlisten="*:*"`:    {PermitListen, "localhost:8080,*:*"},
		"restrict,port-forwarding,permitopen=\"db:5432\",no-user-rc": {PermitOpen, "db:5432"},
	} {
		keys, key, err := parseOne(t, options)
		if want[1] == "" {
			if err == nil {
				t.Errorf("%s is accepted", options)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", options, err)
			continue
		}
		p, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{})
		if err != nil || p.CriticalOptions[want[0]] != want[1] {
			t.Errorf("%s: %q, %v, want %q", options, p.CriticalOptions, err, want[1])
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for options, want := range map[string]string{
		"no-such-thing":                      `unknown option "no-such-thing"`,
		"pty,frm=\"10.0.0.1\"":               `unknown option "frm="`,
		"ptyx":                               `unknown option "ptyx"`,
		"no-restrict":                        "unknown option",
		"pty=\"yes\"":                        `unknown option "pty="`,
		"environment=\"A=b\"":                "may not set the environment",
		"cert-authority=\"yes\"":             "unknown option",
		"principals=\"a\"":                   "add cert-authority",
		"cert-authority,principals=\"a,,b\"": "a name is empty",
		"cert-authority,principals=\"\"":     "a name is empty",
		"verify-required":                    "not supported",
		"command":                            "needs a value",
		"command=":                           "double quotes",
		"command=echo":                       "double quotes",
		"command=\"echo":                     "closing quote",
		"command=\"\"":                       "empty",
		"command=\"  \"":                     "empty",
		"command=\"a\"command=\"b\"":         "comma is missing",
		"command=\"a\",command=\"b\"":        "given twice",
		"from=\"1.2.3.4\",from=\"1.2.3.5\"":  "given twice",
		"from=\"\"":                          "from=",
		"from=\"10.0.0.1/8\"":                "10.0.0.0/8",
		"from=\"10.0.0.0/33\"":               "10.0.0.0/33",
		"principal=\"alice\"":                "unknown option \"principal=\"; did you mean principals?",
		"no-port-fowarding":                  "did you mean no-port-forwarding?",
		"from=\"*.example.com\"":             "would let nobody in",
		"from=\"10.0.0.1,build1\"":           "\"build1\" would let nobody in",
		"from=\"*,!evil.example.com\"":       "keep nobody out",
		"from=\"10.0.0.1 10.0.0.2\"":         "from=",
		"from=\"10.0.0.1,,10.0.0.2\"":        "from=",
		"expiry-time=\"tomorrow\"":           "YYYYMMDD",
		"expiry-time=\"20261301\"":           "YYYYMMDD",
		"expiry-time=\"\"":                   "YYYYMMDD",
		"permitopen=\"localhost\"":           "host:port",
		"permitopen=\"localhost:0\"":         "1 to 65535",
		"permitopen=\"localhost:70000\"":     "1 to 65535",
		"permitopen=\":80\"":                 "host:port",
		"permitopen=\"::1:80\"":              "brackets",
		"permitopen=\"a,b:80\"":              "host:port",
		"permitopen=\"a;b:80\"":              "host:port",
		"permitopen=\"80\"":                  "host:port",
		"permitlisten=\"http\"":              "1 to 65535",
		"\"pty\"":                            "no option",
	} {
		_, _, err := parseOne(t, options)
		if err == nil || !strings.HasPrefix(err.Error(), "keys:1: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want keys:1: and %q", options, err, want)
		}
	}
}

func TestLinesThatAreRefused(t *testing.T) {
	good := line(newSigner(t).PublicKey(), "alice")
	fields := strings.Fields(good)
	ca := newSigner(t)
	cert := issueForTest(t, ca, FullPermissions())
	ecdsaWire := securityKey(t, ssh.KeyAlgoSKECDSA256).Marshal()
	stray, padding := strings.CutSuffix(base64.StdEncoding.EncodeToString(ecdsaWire), "==")
	if !padding {
		t.Fatalf("%s leaves no bits over", stray)
	}
	stray = jwstest.StrayBits(stray) + "=="
	n := append([]byte{0, 0}, new(big.Int).Lsh(big.NewInt(1), 2047).Bytes()...) // one zero byte too many
	padded := base64.StdEncoding.EncodeToString(ssh.Marshal(struct {
		Type string
		E, N []byte
	}{"ssh-rsa", []byte{1, 0, 1}, n}))
	for text, want := range map[string]string{
		"sk-ecdsa-sha2-nistp256@openssh.com " + stray:            "base64",
		"ssh-rsa " + padded:                                      "usual form",
		fields[0] + " " + fields[1][:40] + "\r" + fields[1][40:]: "usual form",
		"ssh-ed25519":                    "no key on this line",
		"no-pty":                         "no key on this line",
		"no-pty ssh-ed25519":             "no key on this line",
		"ssh-ed25519 " + fields[1][:20]:  "cut off",
		"ssh-ed25519 !!!!":               "base64",
		"ssh-rsa " + fields[1]:           `"ssh-rsa"`,
		"restrict " + fields[1]:          "", // an option in the place of the type must not be lost
		"no-pty restrict " + good:        "", // nor in that of a key
		fields[1]:                        "",
		line(cert, "alice"):              "certificate",
		good[:len(good)-len(" alice")-4]: "",
	} {
		_, err := ParseAuthorizedKeys("keys", []byte("# a comment\n\n"+text+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "keys:3: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: error %v, want keys:3: and %q", text, err, want)
		}
	}
}

func TestEveryWrongLineIsReported(t *testing.T) {
	good := line(newSigner(t).PublicKey(), "alice")
	data := strings.Join([]string{"zebra " + good, good, "", "# " + good, "no-pty,x " + good}, "\r\n")
	_, err := ParseAuthorizedKeys("/etc/keys", []byte(data))
	if err == nil || err.Error() != "/etc/keys:1: unknown option \"zebra\"\n/etc/keys:5: unknown option \"x\"" {
		t.Errorf("error %v", err)
	}
}

func TestFileForms(t *testing.T) {
	a, b := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	data := "\n# comment\n   \t\n" + line(a, "alice smith") + "\r\n\t no-pty\t " + line(b, "") + "  "
	keys, err := ParseAuthorizedKeys("keys", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  ssh.PublicKey
		name string
	}{{a, "alice smith"}, {b, ssh.FingerprintSHA256(b)}} {
		p, err := keys.Authorize(t.Context(), Identity{Key: c.key}, Task{ID: "any"})
		if err != nil || IdentityName(p) != c.name {
			t.Errorf("named %q, %v, want %q", IdentityName(p), err, c.name)
		}
	}
	lines := keys.Lines()
	again, err := ParseAuthorizedKeys("lines", []byte(strings.Join(lines, "\n")))
	if err != nil || !slices.Equal(again.Lines(), lines) || len(lines) != 2 {
		t.Errorf("lines %q do not read as themselves: %v", lines, err)
	}
}

func TestWhoIsNotListed(t *testing.T) {
	keys, key, err := parseOne(t, "")
	if err != nil {
		t.Fatal(err)
	}
	stranger := newSigner(t).PublicKey()
	empty, err := ParseAuthorizedKeys("keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	ca := newSigner(t)
	signed := &ssh.Certificate{Key: key, CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := signed.SignCert(zeroReader{}, ca); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		keys *AuthorizedKeys
		key  ssh.PublicKey
	}{
		"another key":                 {keys, stranger},
		"no key":                      {keys, nil},
		"nil list":                    {nil, key},
		"zero list":                   {&AuthorizedKeys{}, key},
		"empty file":                  {empty, key},
		"certificate of a listed key": {keys, signed},
	} {
		if p, err := c.keys.Authorize(t.Context(), Identity{Key: c.key}, Task{}); !errors.Is(err, ErrDenied) || p != nil {
			t.Errorf("%s: %v, %v", what, p, err)
		}
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestFrom(t *testing.T) {
	for _, c := range []struct {
		list string
		in   []string
		out  []string
	}{
		{"10.0.0.0/8", []string{"10.1.2.3", "::ffff:10.1.2.3"}, []string{"11.0.0.1", "::1"}},
		{"10.1.2.3", []string{"10.1.2.3"}, []string{"10.1.2.4"}},
		{"10.1.2.3/32,2001:db8::/32", []string{"10.1.2.3", "2001:db8::1"}, []string{"2001:db9::1"}},
		{"10.*", []string{"10.1.2.3"}, []string{"110.1.2.3"}},
		{"10.?.2.3", []string{"10.1.2.3"}, []string{"10.11.2.3"}},
		{"2001:db8:*", []string{"2001:db8::1"}, []string{"2001:db9::1"}},
		{"2001:DB8::/32", []string{"2001:db8::1"}, nil},
		{"*", []string{"10.1.2.3", "::1", "fe80::1%eth0"}, nil},
		{"*,!10.1.2.3", []string{"10.1.2.4"}, []string{"10.1.2.3"}},
		{"!10.1.2.3,*", []string{"10.1.2.4"}, []string{"10.1.2.3"}},
		{"10.0.0.0/8,!10.1.0.0/16", []string{"10.2.0.1"}, []string{"10.1.0.1", "11.0.0.1"}},
		{"!10.1.0.0/16", nil, []string{"10.1.0.1", "10.2.0.1"}}, // negation alone admits nobody
		{"*,!192.168.*", []string{"10.1.2.3"}, []string{"192.168.1.1"}},
	} {
		keys, key, err := parseOne(t, `from="`+c.list+`"`)
		if err != nil {
			t.Errorf("%s: %v", c.list, err)
			continue
		}
		for _, addr := range c.in {
			if _, err := keys.Authorize(t.Context(), Identity{Key: key, Remote: from(addr)}, Task{}); err != nil {
				t.Errorf("%s: %s is refused: %v", c.list, addr, err)
			}
		}
		for _, addr := range c.out {
			if _, err := keys.Authorize(t.Context(), Identity{Key: key, Remote: from(addr)}, Task{}); !errors.Is(err, ErrDenied) {
				t.Errorf("%s: %s: %v, want ErrDenied", c.list, addr, err)
			}
		}
		if _, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{}); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: an unknown address: %v, want ErrDenied", c.list, err)
		}
	}
}

func TestExpiryTime(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("here", 2*3600)
	defer func() { time.Local = local }()
	for value, end := range map[string]string{
		"20260301Z":                         "2026-03-01T00:00:00Z",
		"20260301":                          "2026-03-01T00:00:00+02:00",
		"202603011230Z":                     "2026-03-01T12:30:00Z",
		"202603011230utc":                   "2026-03-01T12:30:00Z",
		"20260301123015":                    "2026-03-01T12:30:15+02:00",
		"20260301123015Z":                   "2026-03-01T12:30:15Z",
		"20280229Z":                         "2028-02-29T00:00:00Z",
		`20260301Z",expiry-time="20270301Z`: "2026-03-01T00:00:00Z",
		`20270301Z",expiry-time="20260301Z`: "2026-03-01T00:00:00Z",
	} {
		keys, key, err := parseOne(t, fmt.Sprintf(`expiry-time="%s"`, value))
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		last, err := time.Parse(time.RFC3339, end)
		if err != nil {
			t.Fatal(err)
		}
		keys.Now = at(last)
		if _, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{}); err != nil {
			t.Errorf("%s: refused at %s: %v", value, last, err)
		}
		keys.Now = at(last.Add(time.Second))
		if _, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{}); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v a second after %s, want ErrDenied", value, err, last)
		}
	}
}

func TestKeyListedTwice(t *testing.T) {
	key := newSigner(t).PublicKey()
	keys, err := ParseAuthorizedKeys("keys", []byte(
		`from="10.0.0.1" `+line(key, "office")+"\n"+
			`from="10.0.0.2",no-pty `+line(key, "home")+"\n"+
			`from="10.0.0.2" `+line(key, "late")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := keys.Authorize(t.Context(), Identity{Key: key, Remote: from("10.0.0.2")}, Task{})
	if _, pty := p.Extensions[PermitPTY]; err != nil || IdentityName(p) != "home" || pty {
		t.Errorf("%v, %v: want the first line that admits", p, err)
	}
	if _, err := keys.Authorize(t.Context(), Identity{Key: key, Remote: from("10.0.0.3")}, Task{}); !errors.Is(err, ErrDenied) {
		t.Errorf("%v, want ErrDenied", err)
	}
}

func TestAuthorizedPermissionsAreTheCallersOwn(t *testing.T) {
	keys, key, err := parseOne(t, "no-pty")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.Extensions[PermitPTY]; ok {
			t.Fatal("what a caller changed stayed changed")
		}
		p.Extensions[PermitPTY] = ""
	}
}

// A comment ends up in logs, in certificates and on other people's terminals.
func TestIdentityNamesArePrintable(t *testing.T) {
	key := newSigner(t).PublicKey()
	for comment, want := range map[string]string{
		"alice@example.com":        "alice@example.com",
		"\x1b[31mroot\x07\u202e":   "[31mroot",
		"a\xffb":                   "ab",
		strings.Repeat("x", 200):   strings.Repeat("x", 128),
		strings.Repeat("ü", 100):   strings.Repeat("ü", 64),
		"\x01\x02":                 ssh.FingerprintSHA256(key),
		"Zoë Müller, second floor": "Zoë Müller, second floor",
	} {
		keys, err := ParseAuthorizedKeys("keys", []byte(line(key, comment)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := keys.Authorize(t.Context(), Identity{Key: key}, Task{})
		if err != nil || IdentityName(p) != want {
			t.Errorf("%q: %q, %v, want %q", comment, IdentityName(p), err, want)
		}
	}
}

func FuzzParseAuthorizedKeys(f *testing.F) {
	key := newSigner(f).PublicKey()
	for _, options := range []string{"", `no-pty `, `restrict,command="a \"b\"",from="10.*,!10.1.0.0/16",expiry-time="20300101Z",permitopen="a:1",permitlisten="2" `, `cert-authority,principals="a,b",gateway-ports `} {
		f.Add([]byte(options + line(key, "alice") + "\n# x\n"))
	}
	f.Add([]byte("ssh-ed25519 AAAA\n\x00\xff\"\\"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ParseAuthorizedKeys("f", data)
		if err != nil {
			for l := range strings.SplitSeq(err.Error(), "\n") {
				testenv.CheckText(t, errors.New(l))
				if !strings.HasPrefix(l, "f:") {
					t.Fatalf("an error without a line: %q", err)
				}
			}
			return
		}
		lines := keys.Lines()
		again, err := ParseAuthorizedKeys("f", []byte(strings.Join(lines, "\n")))
		if err != nil || !slices.Equal(again.Lines(), lines) {
			t.Fatalf("its own lines read differently: %q, %v", lines, err)
		}
		for _, key := range keys.PublicKeys() {
			p, err := keys.Authorize(t.Context(), Identity{Key: key, Remote: from("192.0.2.1")}, Task{})
			if err == nil && (IdentityName(p) == "" || usable(p) != nil) {
				t.Fatalf("unusable permissions %+v", p)
			}
		}
	})
}

func FuzzMatchWildcard(f *testing.F) {
	f.Add("10.*.?", "10.0.0.1")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 12 {
			return
		}
		if got, want := matchWildcard(pattern, s), plainMatch(pattern, s); got != want {
			t.Fatalf("%q on %q: %v, want %v", pattern, s, got, want)
		}
	})
}

// plainMatch is what the patterns mean, without a bound on the steps it takes.
func plainMatch(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return plainMatch(pattern[1:], s) || s != "" && plainMatch(pattern, s[1:])
	}
	return s != "" && (pattern[0] == '?' || pattern[0] == s[0]) && plainMatch(pattern[1:], s[1:])
}
