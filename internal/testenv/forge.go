package testenv

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Forge is a forge of GitHub's kind with real TLS: it publishes the keys of
// accounts, and tells which login a numeric ID has.
type Forge struct {
	*httptest.Server

	mu       sync.Mutex // guards what follows
	accounts map[int]forgeAccount
	down     bool
}

type forgeAccount struct {
	login string
	keys  []string
}

// NewForge starts a forge without accounts. It ends with the test.
func NewForge(t testing.TB) *Forge {
	f := &Forge{accounts: make(map[int]forgeAccount)}
	f.Server = httptest.NewTLSServer(f)
	t.Cleanup(f.Close)
	return f
}

// Set gives an account its login and keys, as lines of an authorized_keys file.
func (f *Forge) Set(id int, login string, keys ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts[id] = forgeAccount{login, keys}
}

// SetDown has the forge answer nothing of use, or answer again.
func (f *Forge) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// Roots trusts the forge's certificate.
func (f *Forge) Roots() *x509.CertPool {
	return RootsOf(f.Server)
}

// ServeHTTP answers /LOGIN.keys and /api/v3/user/ID.
func (f *Forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		http.Error(w, "the forge is down", http.StatusBadGateway)
		return
	}
	for id, a := range f.accounts {
		switch r.URL.Path {
		case "/" + a.login + ".keys":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			for _, key := range a.keys {
				fmt.Fprintln(w, strings.Join(strings.Fields(key)[:2], " "))
			}
			return
		case fmt.Sprintf("/api/v3/user/%d", id):
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			fmt.Fprintf(w, `{"login":%q,"id":%d,"type":"User"}`, a.login, id)
			return
		}
	}
	http.NotFound(w, r)
}
