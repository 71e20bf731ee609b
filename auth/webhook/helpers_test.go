package webhook

import (
	"crypto/ed25519"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when tests with a clock of their own begin.
var noon = testenv.Noon

// A request is one that came in.
type request struct {
	method string
	header http.Header
	body   []byte
}

// An endpoint is the other side, with real TLS. It checks the signature of each
// request and then has reply answer.
type endpoint struct {
	*httptest.Server
	clock  *testenv.Clock
	secret Secret

	mu       sync.Mutex // guards what follows
	requests []request
	reply    http.HandlerFunc
}

func newEndpoint(t testing.TB, reply http.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{clock: new(testenv.Clock), secret: newSecret(t, 'a'), reply: reply}
	e.Server = testenv.NewTLSServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if err := Verify(e.secret, r.Header, body, e.clock.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		e.mu.Lock()
		e.requests = append(e.requests, request{r.Method, r.Header.Clone(), body})
		reply := e.reply
		e.mu.Unlock()
		reply(w, r)
	}))
	return e
}

// says answers with JSON.
func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, body)
	}
}

// never answers.
func never(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func (e *endpoint) now(reply http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reply = reply
}

// asked returns what came in since the last call.
func (e *endpoint) asked() []request {
	e.mu.Lock()
	defer e.mu.Unlock()
	asked := e.requests
	e.requests = nil
	return asked
}

// webhook asks this endpoint. change may be nil.
func (e *endpoint) webhook(t testing.TB, change func(*Config)) *Webhook {
	t.Helper()
	c := Config{URL: e.URL + "/stagedoor?token=s3cret", Secrets: []Secret{e.secret}, RootCAs: testenv.RootsOf(e.Server), Now: e.clock.Now}
	if change != nil {
		change(&c)
	}
	w, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// newSecret is 32 times c.
func newSecret(t testing.TB, c byte) Secret {
	t.Helper()
	return Secret{key: []byte(strings.Repeat(string(c), 32))}
}

// newSigner makes the same key for the same c.
func newSigner(t testing.TB, c byte) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(c), ed25519.SeedSize))))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// newCertificate is what the package comment shows. change may be nil.
func newCertificate(t testing.TB, ca ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: newSigner(t, 'k').PublicKey(), CertType: ssh.UserCert, KeyId: "alice@example.com", Serial: 7, ValidPrincipals: []string{"alice"},
		ValidAfter: uint64(noon.Add(-time.Hour).Unix()), ValidBefore: uint64(noon.Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""}},
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(strings.NewReader(strings.Repeat("n", 1024)), ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

// guest signs in with a key.
func guest(key ssh.PublicKey) auth.Identity {
	return auth.Identity{Method: "publickey", Key: key, Remote: netip.MustParseAddrPort("192.0.2.7:50000")}
}

var task = auth.Task{ID: "task-1234"}
