// Package testenv says what a test needs of the machine, and makes the parts
// that many tests share: certificates, keys, the ssh program's arguments.
package testenv

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Need skips the test where a program is missing, and fails it in CI (CI=true),
// where everything has to be there. It returns the program's path.
func Need(t testing.TB, program string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Skip(t, "needs "+program)
	return ""
}

// NeedRoot skips the test where it does not run as root, and fails it in CI.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Skip skips the test for want of something that the machine lacks, and fails it
// in CI. The reason goes into the summary that `make test` prints.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %s, and in CI nothing may be skipped", t.Name(), reason)
	}
	if path := os.Getenv("STAGEDOOR_SKIPS"); path != "" {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
			fmt.Fprintf(f, "%s: %s\n", t.Name(), reason)
			f.Close()
		}
	}
	t.Skip(reason)
}

// Certificate makes a TLS certificate for localhost and 127.0.0.1, and the pool
// that trusts it.
func Certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	leaf, err := x509.ParseCertificate(der)
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// WriteCertificate writes a certificate and its key as PEM files to dir.
func WriteCertificate(t testing.TB, dir string, c tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	check(t, err)
	check(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600))
	check(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return certFile, keyFile
}

// Signer makes an ed25519 key.
func Signer(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	s, err := ssh.NewSignerFromKey(key)
	check(t, err)
	return s
}

// Key is a guest's key as the ssh program wants it.
type Key struct {
	Signer ssh.Signer
	File   string // private half, OpenSSH format
	Line   string // for an authorized_keys file, without a newline
}

// NewKey makes an ed25519 key in dir under the given name, which is its comment
// too.
func NewKey(t testing.TB, dir, name string) Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(private, name)
	check(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	check(t, err)
	k := Key{Signer: signer, File: filepath.Join(dir, name)}
	check(t, os.WriteFile(k.File, pem.EncodeToMemory(block), 0o600))
	public := ssh.MarshalAuthorizedKey(signer.PublicKey())
	k.Line = string(public[:len(public)-1]) + " " + name
	check(t, os.WriteFile(k.File+".pub", []byte(k.Line+"\n"), 0o600))
	return k
}

// Listen listens on a free port of the loopback interface.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// SSHOptions are the options with which ssh, scp and sftp take nothing from the
// machine that they run on, ask nothing, and know the host key of address.
func SSHOptions(t testing.TB, dir, address string, hostKey ssh.PublicKey, k Key) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	check(t, err)
	known := filepath.Join(dir, "known_hosts_"+port)
	line := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(hostKey))
	check(t, os.WriteFile(known, []byte(line), 0o600))
	return []string{
		"-F", "none",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known,
		"-o", "GlobalKnownHostsFile=none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "ConnectTimeout=120", "-o", "LogLevel=ERROR", "-o", "IdentityFile=" + k.File, "-o", "Port=" + port,
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
