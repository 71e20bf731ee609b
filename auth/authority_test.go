package auth

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestAuthority: which certificates of an organization open which tasks, and why
// others do not.
func TestAuthority(t *testing.T) {
	ca, second, other := newSigner(t), newSigner(t), newSigner(t)
	keys := []ssh.PublicKey{ca.PublicKey(), second.PublicKey()}
	byName := &Authority{Name: "by name", Keys: keys, Now: at(noon)}
	byPolicy := &Authority{Name: "by policy", Keys: keys, Now: at(noon), Tasks: map[string][]string{
		"ops": {"*"}, "web": {"web-*", "docs"}, "nobody": {}, "task-1": {"task-2"}, "": {"*"},
	}}
	named := func(principals ...string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.ValidPrincipals = principals }
	}
	option := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions[name] = value }
	}
	for what, c := range map[string]struct {
		by     *Authority
		signer ssh.Signer
		change func(*ssh.Certificate)
		task   TaskID
		want   string // part of the reason; empty: let in
		known  bool   // there may be a task for it
	}{
		"the task's name":               {byName, ca, named("task-1"), "task-1", "", true},
		"the second key":                {byName, second, named("task-1"), "task-1", "", true},
		"one of its names":              {byName, ca, named("alice", "task-1"), "task-1", "", true},
		"another task's name":           {byName, ca, named("task-1"), "task-2", `and not "task-2"`, true},
		"upper case":                    {byName, ca, named("Task-1"), "task-1", `and not "task-1"`, false},
		"a pattern in the certificate":  {byName, ca, named("*", "task-*"), "task-1", "and not", false},
		"a principal that is no task":   {byName, ca, named("ops"), "task-1", "and not", true},
		"a principal for everything":    {byPolicy, ca, named("ops"), "anything", "", true},
		"a principal for a pattern":     {byPolicy, ca, named("web"), "web-77", "", true},
		"a principal for one task":      {byPolicy, ca, named("web"), "docs", "", true},
		"the start of a pattern":        {byPolicy, ca, named("web"), "web", `"web" opens web-*, docs`, true},
		"beyond a name":                 {byPolicy, ca, named("web"), "docs2", "for other tasks", true},
		"the task's name, under policy": {byPolicy, ca, named("web-77"), "web-77", "none of them opens any", false},
		"a name that is for another":    {byPolicy, ca, named("task-1"), "task-1", `"task-1" opens task-2`, true},
		"a principal for nothing":       {byPolicy, ca, named("nobody"), "task-1", "none of them opens any", false},
		"an empty principal":            {byPolicy, ca, named(""), "task-1", "none of them opens any", false},
		"another authority":             {byPolicy, other, named("ops"), "task-1", "by another authority, " + ssh.FingerprintSHA256(other.PublicKey()), false},
		"for anybody":                   {byPolicy, ca, named(), "task-1", "no principals", false},
		"a host's":                      {byPolicy, ca, func(c *ssh.Certificate) { c.ValidPrincipals, c.CertType = []string{"ops"}, ssh.HostCert }, "task-1", "host certificate", false},
		"expired":                       {byName, ca, func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Unix()) }, someTask, "expired", false},
		"from where it may come":        {byName, ca, option(SourceAddress, "192.0.2.0/24"), someTask, "", true},
		"from elsewhere":                {byName, ca, option(SourceAddress, "192.0.2.8/32"), someTask, "source-address does not list 192.0.2.7", false},
		"an option that nobody knows":   {byName, ca, option("fly@example.com", ""), someTask, "fly@example.com", false},
		"a PIN":                         {byName, ca, option("verify-required", ""), someTask, "verify-required", false},
	} {
		id := Identity{Key: userCertificate(t, c.signer, c.change), Remote: from("192.0.2.7")}
		p, err := c.by.Authorize(t.Context(), id, Task{ID: c.task})
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, %v, want %q", what, p, err, c.want)
		}
		if err != nil {
			testenv.CheckText(t, err)
		}
		if err := c.by.Knows(id); (err == nil) != c.known {
			t.Errorf("%s: known %v: %v", what, c.known, err)
		}
	}
	nested := userCertificate(t, ca, named("task-1"))
	nested.SignatureKey = userCertificate(t, ca, nil)
	if _, err := byName.Authorize(t.Context(), Identity{Key: nested}, Task{ID: "task-1"}); err == nil || !strings.Contains(err.Error(), "within a certificate") {
		t.Errorf("signed by a certificate: %v", err)
	}
	for what, a := range map[string]*Authority{"no keys": {}, "the key without certificate": byPolicy} {
		if _, err := a.Authorize(t.Context(), Identity{Key: ca.PublicKey()}, Task{ID: "task-1"}); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := byPolicy.Authorize(t.Context(), Identity{Method: "password"}, Task{ID: "task-1"}); !errors.Is(err, ErrDenied) {
		t.Errorf("without a key: %v", err)
	}
}

// TestWhatAuthoritiesPermit: what the certificate says, and gateway-ports only if it
// says so.
func TestWhatAuthoritiesPermit(t *testing.T) {
	ca := newSigner(t)
	a := &Authority{Keys: []ssh.PublicKey{ca.PublicKey()}, Now: at(noon)}
	for _, c := range []struct {
		extensions []string
		command    string
		want       []string
	}{
		{[]string{PermitPTY}, "", []string{PermitExec, PermitPTY, PermitSFTP}},
		{[]string{PermitPTY, "permit-user-rc", "x@example.com"}, "uptime", []string{PermitExec, PermitPTY, PermitSFTP}},
		{[]string{PermitSFTP}, "", []string{PermitSFTP}},
		{[]string{PermitPTY, PermitGatewayPorts}, "", []string{PermitPTY, PermitGatewayPorts}},
		{[]string{PermitPTY, noTouchRequired}, "", []string{PermitExec, PermitPTY, PermitSFTP, noTouchRequired}},
	} {
		cert := userCertificate(t, ca, func(cert *ssh.Certificate) {
			cert.Extensions = map[string]string{}
			for _, name := range c.extensions {
				cert.Extensions[name] = ""
			}
			if c.command != "" {
				cert.CriticalOptions[ForceCommand] = c.command
			}
		})
		p, err := a.Authorize(t.Context(), Identity{Key: cert}, Task{ID: someTask})
		if err != nil {
			t.Fatal(err)
		}
		command, _ := ForcedCommand(p)
		if !slices.Equal(permits(p), slices.Sorted(slices.Values(c.want))) || command != c.command || IdentityName(p) != "alice@example.com" {
			t.Errorf("%q: %+v, want %q", c.extensions, p, c.want)
		}
	}
}

// TestMistakesInAuthorities: files and patterns that would not do what they look
// like.
func TestMistakesInAuthorities(t *testing.T) {
	key := line(newSigner(t).PublicKey(), "ca")
	for want, text := range map[string]string{
		"no public key":              "# none\n",
		"ca.pub:2: options do not":   key + "\ncert-authority " + key,
		"ca.pub:1: options do not":   `from="192.0.2.1" ` + key,
		"ca.pub:1: key is not base6": "ssh-ed25519 x",
	} {
		if keys, err := ParseAuthorities("ca.pub", []byte(text)); err == nil || keys != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if keys, err := ParseAuthorities("ca.pub", []byte("# both\n"+key+"\n"+key+"\n")); err != nil || len(keys) != 2 {
		t.Errorf("%v, %v", keys, err)
	}
	for pattern, ok := range map[string]bool{"*": true, "web-*": true, "*-ci": true, "a.b_c": true, "": false, "Web-*": false, "web?": false, "a b": false, "-x": false,
		strings.Repeat("a", 64): false} {
		if err := CheckTaskPattern(pattern); (err == nil) != ok {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}
