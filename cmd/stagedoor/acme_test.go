package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestDomainAlone starts the real program with a domain, and an authority that
// is not Let's Encrypt but proves the domain in the same way (RFC 8737).
func TestDomainAlone(t *testing.T) {
	free := testenv.Listen(t)
	https := free.Addr().String()
	free.Close()
	ca := startAuthority(t, https)
	state := t.TempDir()

	for start := range 2 {
		g := startProgram(t, ca.rootFile, "gateway", "--domain", "Terminal.Example.test", "--state-dir", state,
			"--https-listen", https, "--https-acme-directory", ca.url+"/", "--https-acme-email", "me@example.test",
			"--ssh-listen", "127.0.0.1:0", "--private-listen", "off")
		g.log.await(t, "certificate ready", 1)
		for _, name := range []string{"terminal.example.test", ""} {
			leaf := peerCertificate(t, https, name)
			if err := leaf.CheckSignatureFrom(ca.root); err != nil {
				t.Errorf("the certificate for %q is not the authority's: %v", name, err)
			}
		}
		if c, err := tls.Dial("tcp", https, &tls.Config{ServerName: "other.example.test", InsecureSkipVerify: true}); err == nil {
			c.Close()
			t.Error("there is a certificate for a stranger's name")
		}
		if n := ca.issued.Load(); n != 1 {
			t.Errorf("after start %d: %d certificates were issued; one is kept in the state directory", start+1, n)
		}
		g.cmd.Process.Signal(syscall.SIGTERM)
		if err := g.cmd.Wait(); err != nil {
			t.Errorf("the gateway ended with %v\n%s", err, g.log)
		}
	}
	if mail := ca.contact.Load(); mail == nil || *mail != "mailto:me@example.test" {
		t.Errorf("the authority was told to write to %v", mail)
	}
}

// Without a certificate the gateway runs, and says what to look at.
func TestCertificateCannotBeFetched(t *testing.T) {
	nobody := testenv.Listen(t)
	nobody.Close()
	g := startProgram(t, "", "gateway", "--domain", "terminal.example.test", "--state-dir", t.TempDir(), "--https-listen", "127.0.0.1:0",
		"--https-acme-directory", "https://"+nobody.Addr().String()+"/", "--ssh-listen", "127.0.0.1:0", "--private-listen", "off")
	g.log.await(t, "gateway ready", 1)
	g.log.await(t, "Check that the domain's address is this machine's", 1)
}

type program struct {
	cmd *exec.Cmd
	log *logBuffer
}

func startProgram(t *testing.T, rootFile string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.CommandContext(t.Context(), "stagedoor", args...), log: &logBuffer{}}
	p.cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+rootFile)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

func peerCertificate(t *testing.T, address, name string) *x509.Certificate {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatalf("connect as %q: %v", name, err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// authority is an ACME server (RFC 8555) for one order at a time, which
// believes the signatures of its clients. It proves a domain by tls-alpn-01, at
// one address whatever the domain is.
type authority struct {
	t        *testing.T
	target   string
	server   *httptest.Server
	url      string
	root     *x509.Certificate
	rootKey  *ecdsa.PrivateKey
	rootFile string
	issued   atomic.Int32
	contact  atomic.Pointer[string]

	mu     sync.Mutex // guards what follows
	domain string
	proven bool
	chain  []byte // PEM
}

func startAuthority(t *testing.T, target string) *authority {
	t.Helper()
	cert := certificateFor(t, "localhost")
	a := &authority{t: t, target: target, root: cert.Leaf, rootKey: cert.PrivateKey.(*ecdsa.PrivateKey)}
	a.rootFile = write(t, filepath.Join(t.TempDir(), "root.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.directory)
	mux.HandleFunc("/nonce", a.reply(func([]byte) (int, any) { return http.StatusOK, nil }))
	mux.HandleFunc("POST /account", a.reply(a.account))
	mux.HandleFunc("POST /orders", a.reply(a.newOrder))
	mux.HandleFunc("POST /order", a.reply(func([]byte) (int, any) { return http.StatusOK, a.order() }))
	mux.HandleFunc("POST /authz", a.reply(func([]byte) (int, any) { return http.StatusOK, a.authorization() }))
	mux.HandleFunc("POST /challenge", a.reply(a.challenge))
	mux.HandleFunc("POST /finalize", a.reply(a.finalize))
	mux.HandleFunc("POST /certificate", a.reply(func([]byte) (int, any) { return http.StatusOK, a.chain }))
	a.server = httptest.NewUnstartedServer(mux)
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	// The certificate is for a name, and the URL that the server gives itself
	// an address.
	_, port, _ := net.SplitHostPort(a.server.Listener.Addr().String())
	a.url = "https://localhost:" + port
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	return a
}

func (a *authority) directory(w http.ResponseWriter, _ *http.Request) {
	json.NewEncoder(w).Encode(map[string]string{
		"newNonce": a.url + "/nonce", "newAccount": a.url + "/account", "newOrder": a.url + "/orders",
	})
}

// reply answers with JSON, or with bytes as they are, to the payload of a
// signed request (RFC 7515).
func (a *authority) reply(handle func(payload []byte) (int, any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var signed struct{ Payload string }
		json.NewDecoder(r.Body).Decode(&signed)
		payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
		a.mu.Lock()
		status, answer := handle(payload)
		a.mu.Unlock()
		w.Header().Set("Replay-Nonce", rand.Text())
		switch r.URL.Path {
		case "/account":
			w.Header().Set("Location", a.url+"/account/1")
		case "/orders", "/finalize":
			w.Header().Set("Location", a.url+"/order")
		}
		w.WriteHeader(status)
		if data, ok := answer.([]byte); ok {
			w.Write(data)
		} else if answer != nil {
			json.NewEncoder(w).Encode(answer)
		}
	}
}

func (a *authority) account(payload []byte) (int, any) {
	var request struct{ Contact []string }
	json.Unmarshal(payload, &request)
	if len(request.Contact) > 0 {
		a.contact.Store(&request.Contact[0])
	}
	return http.StatusCreated, map[string]any{"status": "valid"}
}

func (a *authority) newOrder(payload []byte) (int, any) {
	var request struct{ Identifiers []struct{ Value string } }
	json.Unmarshal(payload, &request)
	a.domain, a.proven, a.chain = request.Identifiers[0].Value, false, nil
	return http.StatusCreated, a.order()
}

func (a *authority) order() any {
	status := "pending"
	switch {
	case a.chain != nil:
		status = "valid"
	case a.proven:
		status = "ready"
	}
	return map[string]any{
		"status": status, "identifiers": []any{map[string]string{"type": "dns", "value": a.domain}},
		"authorizations": []string{a.url + "/authz"}, "finalize": a.url + "/finalize", "certificate": a.url + "/certificate",
	}
}

func (a *authority) authorization() any {
	status := "pending"
	if a.proven {
		status = "valid"
	}
	return map[string]any{
		"status": status, "identifier": map[string]string{"type": "dns", "value": a.domain},
		"challenges": []any{map[string]string{"type": "tls-alpn-01", "url": a.url + "/challenge", "token": "token", "status": status}},
	}
}

// challenge asks the gateway for the certificate that only the owner of the
// order can make.
func (a *authority) challenge([]byte) (int, any) {
	c, err := tls.Dial("tcp", a.target, &tls.Config{ServerName: a.domain, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return http.StatusBadRequest, map[string]string{"detail": err.Error()}
	}
	defer c.Close()
	state := c.ConnectionState()
	leaf := state.PeerCertificates[0]
	if state.NegotiatedProtocol != "acme-tls/1" || leaf.VerifyHostname(a.domain) != nil || !hasProof(leaf) {
		return http.StatusBadRequest, map[string]string{"detail": fmt.Sprintf("not a proof: %q", state.NegotiatedProtocol)}
	}
	a.proven = true
	return http.StatusOK, map[string]string{"type": "tls-alpn-01", "url": a.url + "/challenge", "token": "token", "status": "valid"}
}

func hasProof(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		if strings.HasPrefix(e.Id.String(), "1.3.6.1.5.5.7.1.31") && e.Critical {
			return true
		}
	}
	return false
}

func (a *authority) finalize(payload []byte) (int, any) {
	var request struct{ CSR string }
	json.Unmarshal(payload, &request)
	der, _ := base64.RawURLEncoding.DecodeString(request.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || !a.proven {
		return http.StatusForbidden, map[string]string{"detail": "no proof"}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: a.domain}, DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return http.StatusForbidden, map[string]string{"detail": "not the kind of key that agents like"}
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, a.root, csr.PublicKey, a.rootKey)
	if err != nil {
		return http.StatusInternalServerError, map[string]string{"detail": err.Error()}
	}
	a.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	a.issued.Add(1)
	return http.StatusOK, a.order()
}
