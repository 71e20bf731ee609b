package hostile

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestStartFailsClosed: a gateway that lacks what keeps strangers out, or whose
// secrets others can read, says why and listens on nothing.
func TestStartFailsClosed(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(dir string) []string // more lines of the configuration
		says  string
	}{
		{"no host key", func(dir string) []string { return []string{"ssh.host_keys: [nowhere]"} }, "no such file"},
		{"a host key that others read", func(dir string) []string {
			testenv.NewKey(t, dir, "open")
			mustDo(t, os.Chmod(filepath.Join(dir, "open"), 0o644))
			return []string{"ssh.host_keys: [open]"}
		}, "open"},
		{"a key of its own that others read", func(dir string) []string {
			mustDo(t, os.Mkdir(filepath.Join(dir, "state"), 0o700))
			k := testenv.NewKey(t, filepath.Join(dir, "state"), "guest_ca")
			mustDo(t, os.Chmod(k.File, 0o640))
			return nil
		}, "guest_ca"},
		{"a TLS key that others read", func(dir string) []string {
			mustDo(t, os.Chmod(filepath.Join(dir, "key.pem"), 0o644))
			return nil
		}, "key.pem"},
		{"a secret for tokens that others read", func(dir string) []string {
			mustDo(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(strings.Repeat("s", 40)), 0o644))
			return []string{"hosts.token_keys: [secret]"}
		}, "secret"},
		{"a guessable secret for tokens", func(dir string) []string {
			mustDo(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("hunter2"), 0o600))
			return []string{"hosts.token_keys: [secret]"}
		}, "secret"},
		{"no key for tokens", func(dir string) []string { return []string{"hosts.token_keys: [nowhere]"} }, "no such file"},
		{"tokens for whomever", func(dir string) []string { return []string{"hosts.audience: ''"} }, "audience"},
		{"keys of guests that others write", func(dir string) []string {
			k := testenv.NewKey(t, dir, "op")
			mustDo(t, os.Chmod(k.File+".pub", 0o666))
			return []string{"guests.authorized_keys: [op.pub]"}
		}, "chmod go-w"},
		{"keys of guests that cannot be read", func(dir string) []string {
			mustDo(t, os.WriteFile(filepath.Join(dir, "keys"), []byte("restrict ssh-ed25519 AAAA\n"), 0o600))
			return []string{"guests.authorized_keys: [keys]"}
		}, "keys"},
		{"an option that is not known", func(dir string) []string {
			k := testenv.NewKey(t, dir, "op")
			mustDo(t, os.WriteFile(filepath.Join(dir, "keys"), []byte("no-such-restriction "+k.Line+"\n"), 0o600))
			return []string{"guests.authorized_keys: [keys]"}
		}, "no-such-restriction"},
		{"an unknown key", func(dir string) []string { return []string{"guests.authorised_keys: [x]"} }, "no such key"},
		{"an unknown section", func(dir string) []string { return []string{"firewall.on: 1"} }, "no such key"},
		{"an unknown permission", func(dir string) []string { return []string{"guests.permissions: [pty, root]"} }, "no permission"},
		{"a limit of nothing", func(dir string) []string { return []string{"limits.auth_tries: 0"} }, "more than 0"},
		{"everybody a load balancer", func(dir string) []string { return []string{"proxy_protocol.from: [0.0.0.0/0]"} }, "anybody"},
		{"an expired certificate", func(dir string) []string {
			testenv.WriteCertificate(t, dir, expired(t))
			return nil
		}, "expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cert, _ := testenv.Certificate(t)
			testenv.WriteCertificate(t, dir, cert)
			ssh, https := testenv.FreeAddress(t), testenv.FreeAddress(t)
			args := []string{"gateway", "--config", filepath.Join(dir, "c.yaml"), "--ssh-listen", ssh, "--https-listen", https, "--private-listen", "off"}
			lines := []string{"ssh.address: localhost:22", "state_dir: state", "https.certificate: cert.pem", "https.key: key.pem"}
			mustDo(t, os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(nested(append(lines, test.spoil(dir)...))), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, filepath.Join(binaries, "stagedoor"), args...).CombinedOutput()
			if err == nil || ctx.Err() != nil || !strings.Contains(string(out), test.says) {
				t.Errorf("%v: %s", err, out)
			}
			for _, address := range []string{ssh, https} {
				if c, err := net.Dial("tcp", address); err == nil {
					c.Close()
					t.Error("somebody listens")
				}
			}
		})
	}
}

// nested writes ssh.listen: x as YAML has it. Keys of a section may be apart.
func nested(lines []string) string {
	var order []string
	sections := map[string]string{}
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, ":")
		section, key, isNested := strings.Cut(name, ".")
		if !isNested {
			order = append(order, line)
			continue
		}
		if sections[section] == "" {
			order = append(order, section)
		}
		sections[section] += "  " + key + ":" + rest + "\n"
	}
	var text strings.Builder
	for _, line := range order {
		if body := sections[line]; body != "" {
			text.WriteString(line + ":\n" + body)
			continue
		}
		text.WriteString(line + "\n")
	}
	return text.String()
}

// expired is a certificate whose time was over yesterday.
func expired(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustDo(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	mustDo(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
