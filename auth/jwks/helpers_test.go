package jwks

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// webKeyOf is a member of a set.
func webKeyOf(id string, key crypto.Signer) map[string]any {
	data := must(jose.JSONWebKey{Key: key.Public(), KeyID: id, Use: "sig"}.MarshalJSON())
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

func setOf(keys ...map[string]any) []byte {
	return must(json.Marshal(map[string]any{"keys": keys}))
}

// sign makes a token by the book.
func sign(t testing.TB, id string, key crypto.Signer, payload string) string {
	t.Helper()
	alg := jose.EdDSA
	switch key.(type) {
	case *ecdsa.PrivateKey:
		alg = jose.ES256
	case *rsa.PrivateKey:
		alg = jose.RS256
	}
	o := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		o = o.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	return must(must(signer.Sign([]byte(payload))).CompactSerialize())
}

// A keyServer answers by HTTPS with what it is told to.
type keyServer struct {
	*httptest.Server
	requests atomic.Int64

	mu     sync.Mutex
	answer http.HandlerFunc
}

func newKeyServer(t testing.TB, keys ...map[string]any) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.publish(keys...)
	s.Server = testenv.NewTLSServer(t, http.HandlerFunc(s.serve))
	return s
}

func (s *keyServer) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	answer(w, r)
}

func (s *keyServer) answers(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

func (s *keyServer) publish(keys ...map[string]any) {
	data := setOf(keys...)
	s.answers(func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
}

func (s *keyServer) fails(status int) {
	s.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// set returns a Set of the server's keys and the clock that it goes by.
func (s *keyServer) set(t testing.TB, change ...func(*Options)) (*Set, *testenv.Clock) {
	t.Helper()
	c := new(testenv.Clock)
	o := &Options{Refresh: 10 * time.Minute, MinInterval: time.Minute, MaxStale: 5 * time.Hour, Timeout: time.Minute, RootCAs: testenv.RootsOf(s.Server), Now: c.Now}
	for _, f := range change {
		f(o)
	}
	set, err := New(s.URL+"/keys", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	return set, c
}

func (s *keyServer) wantRequests(t testing.TB, want int64) {
	t.Helper()
	if got := s.requests.Load(); got != want {
		t.Errorf("%d requests, want %d", got, want)
	}
}

// wantGood and wantBad check what becomes of a token.
func wantGood(t testing.TB, s *Set, token string) {
	t.Helper()
	if payload, err := s.Verify(t.Context(), token); err != nil || string(payload) != "{}" {
		t.Errorf("payload %q, error %v", payload, err)
	}
}

func wantBad(t testing.TB, s *Set, token, text string) error {
	t.Helper()
	payload, err := s.Verify(t.Context(), token)
	if err == nil || payload != nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("payload %q, error %v, want one with %q", payload, err, text)
	}
	testenv.CheckText(t, err)
	return err
}

// idle waits until no attempt is under way.
func (s *Set) idle() {
	s.mu.Lock()
	done := s.running
	s.mu.Unlock()
	wait(context.Background(), done)
}

// A lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
