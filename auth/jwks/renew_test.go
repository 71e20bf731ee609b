package jwks

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
)

// TestNoCopyYet: while nobody can get in, a key set that comes up is found sooner
// than a key that is new in one that is there.
func TestNoCopyYet(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t)
	server.fails(http.StatusBadGateway)
	set, clock := server.set(t) // MinInterval is a minute
	token := sign(t, "1", key, "{}")
	wantBad(t, set, token, "status 502")
	clock.Advance(5 * time.Second)
	wantBad(t, set, token, "status 502")
	server.wantRequests(t, 1)
	server.publish(webKeyOf("1", key))
	clock.Advance(time.Second)
	wantGood(t, set, token)
	server.wantRequests(t, 2)
	clock.Advance(6 * time.Second)
	wantBad(t, set, sign(t, "2", jwstest.Ed25519(), "{}"), "not among those")
	server.wantRequests(t, 2)
}

// TestRenew: what was asked for is waited for, by whoever comes meanwhile, and does
// no harm when it fails.
func TestRenew(t *testing.T) {
	old, next := jwstest.Ed25519(), jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", old))
	set, _ := server.set(t)
	wantGood(t, set, sign(t, "1", old, "{}"))

	asked, answer := make(chan struct{}), make(chan struct{})
	data := setOf(webKeyOf("1", next))
	server.answers(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		select {
		case <-answer:
		case <-r.Context().Done():
		}
		w.Write(data)
	})
	set.Renew()
	<-asked
	set.Renew() // the same attempt
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := set.Verify(impatient, sign(t, "1", old, "{}")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("who does not wait: %v", err)
	}
	close(answer)
	wantBad(t, set, sign(t, "1", old, "{}"), "signature")
	wantGood(t, set, sign(t, "1", next, "{}"))

	server.fails(http.StatusBadGateway)
	set.Renew()
	set.idle()
	wantGood(t, set, sign(t, "1", next, "{}"))
	set.Close()
	set.Renew()
	wantGood(t, set, sign(t, "1", next, "{}"))
}

// TestSetsTellWhatCanBePutRight: of several reasons, that one is told after which
// another try can help.
func TestSetsTellWhatCanBePutRight(t *testing.T) {
	a, b := newKeyServer(t, webKeyOf("1", jwstest.Ed25519())), newKeyServer(t, webKeyOf("2", jwstest.Ed25519()))
	first, _ := a.set(t)
	second, _ := b.set(t)
	sets := Sets{first, second}
	for id, want := range map[string]string{"1": "signature is wrong", "2": "signature is wrong", "3": "is not among those"} {
		if _, err := sets.Verify(t.Context(), sign(t, id, jwstest.Ed25519(), "{}")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("by key %s: %v, want %q", id, err, want)
		}
	}
	b.fails(http.StatusBadGateway)
	second, _ = b.set(t)
	if _, err := (Sets{first, second}).Verify(t.Context(), sign(t, "1", jwstest.Ed25519(), "{}")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("while one is down: %v", err)
	}
	if _, err := (Sets{}).Verify(t.Context(), sign(t, "1", jwstest.Ed25519(), "{}")); err == nil {
		t.Error("no set verifies")
	}
}
