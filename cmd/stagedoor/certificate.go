package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/stagedoor/stagedoor/cmd/internal/version"
)

// getCertificate has the form of tls.Config.GetCertificate.
type getCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// certificates keeps what has to outlive a reload: a manager that renews a
// certificate cannot be stopped, so that the same settings must find it again.
type certificates struct {
	managers map[acmeSettings]*acmeManager
}

type acmeSettings struct{ domain, cache, email, directory string }

// acmeManager gets certificates for one domain.
type acmeManager struct {
	get   getCertificate
	ready chan struct{} // closed when it has got the first
}

// source returns where the TLS certificate comes from: files, or ACME.
func (s *certificates) source(c *Config, r *report) getCertificate {
	if c.HTTPS.Certificate == "" {
		return s.acme(c).get
	}
	cert := loadCertificate(c, r)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
}

func (s *certificates) acme(c *Config) *acmeManager {
	a := acmeSettings{c.Domain, filepath.Join(c.StateDir, acmeDir), c.HTTPS.ACME.Email, c.HTTPS.ACME.Directory}
	if m, ok := s.managers[a]; ok {
		return m
	}
	if s.managers == nil {
		s.managers = map[acmeSettings]*acmeManager{}
	}
	m := newACMEManager(a)
	s.managers[a] = m
	return m
}

func newACMEManager(a acmeSettings) *acmeManager {
	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS, // the help of --domain says so
		Cache:      autocert.DirCache(a.cache),
		HostPolicy: autocert.HostWhitelist(a.domain),
		Email:      a.email,
		Client:     &acme.Client{DirectoryURL: a.directory, UserAgent: "stagedoor/" + version.String()},
	}
	ready := make(chan struct{})
	announce := sync.OnceFunc(func() { close(ready) })
	return &acmeManager{ready: ready, get: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "" {
			// Clients that connect to an address send no name, and this
			// gateway has only one.
			named := *hello
			named.ServerName = a.domain
			hello = &named
		}
		cert, err := m.GetCertificate(hello)
		if err == nil && !slices.Contains(hello.SupportedProtos, acme.ALPNProto) { // which is the authority's question
			announce()
		}
		return cert, err
	}}
}

// fetchCertificate gets the certificate before the first agent asks, so that
// what stands in the way is in the log and not in the agents'. It returns when
// there is a certificate, by whoever's connection, or when ctx ends.
func (m *acmeManager) fetchCertificate(ctx context.Context, domain string, log *slog.Logger) {
	failed := make(chan error, 1)
	go func() {
		_, err := m.get(&tls.ClientHelloInfo{
			ServerName:        domain,
			SupportedVersions: []uint16{tls.VersionTLS13},
			CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SupportedCurves:   []tls.CurveID{tls.CurveP256, tls.X25519},
			SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256},
		})
		if err != nil {
			failed <- err
		}
	}()
	for {
		select {
		case <-ctx.Done(): // autocert gives up by itself within five minutes
			return
		case err := <-failed:
			log.Error("no certificate yet; agents cannot connect. Check that the domain's address is this machine's, and that port 443 reaches https.listen from the Internet. It is tried again with each connection",
				"domain", domain, "error", err)
		case <-m.ready:
			log.Info("certificate ready", "domain", domain)
			return
		}
	}
}

// loadCertificate reads the certificate from files, and refuses one that agents
// would refuse.
func loadCertificate(c *Config, r *report) *tls.Certificate {
	if !readable(c, r) {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.HTTPS.Certificate, c.HTTPS.Key)
	if err != nil {
		r.add("https.certificate", "%v; it takes the chain in PEM, this server's certificate first, and the key that belongs to it", err)
		return nil
	}
	if err := checkLeaf(cert.Leaf, c.Domain, time.Now()); err != nil {
		r.add("https.certificate", "%s: %v", c.HTTPS.Certificate, err)
	}
	return &cert
}

// readable reports files that are missing, and a key that strangers can read. A
// group may: on Debian certificates' keys belong to the group ssl-cert.
func readable(c *Config, r *report) bool {
	ok := true
	for _, one := range [][2]string{{"https.certificate", c.HTTPS.Certificate}, {"https.key", c.HTTPS.Key}} {
		key, file := one[0], one[1]
		if file == "" {
			return false // reported before
		}
		f, err := os.Open(file)
		if err != nil {
			r.add(key, "%s: %s", file, openHint(err))
			ok = false
			continue
		}
		info, err := f.Stat()
		f.Close()
		if err == nil && key == "https.key" && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
			r.add(key, "%s: every user of this machine can read it: run chmod o-rwx %[1]s", file)
			ok = false
		}
	}
	return ok
}

func checkLeaf(leaf *x509.Certificate, domain string, now time.Time) error {
	switch {
	case leaf == nil:
		return errors.New("no certificate in it")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it expired on %s: renew it", leaf.NotAfter.Format(time.DateOnly))
	case domain == "":
		return nil
	}
	if err := leaf.VerifyHostname(domain); err != nil {
		return fmt.Errorf("it is not for %s: %w", domain, err)
	}
	return nil
}
