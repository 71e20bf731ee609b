package jwks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestRotation(t *testing.T) {
	old, next := jwstest.Ed25519(), jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("old", old))
	set, clock := server.set(t)
	oldToken, nextToken := sign(t, "old", old, "{}"), sign(t, "next", next, "{}")
	wantGood(t, set, oldToken)

	server.publish(webKeyOf("old", old), webKeyOf("next", next))
	clock.Advance(time.Minute)
	wantGood(t, set, nextToken)
	wantGood(t, set, oldToken)
	server.wantRequests(t, 2)

	server.publish(webKeyOf("next", next))
	clock.Advance(20 * time.Minute)
	wantGood(t, set, nextToken)
	wantBad(t, set, oldToken, `"old"`)
}

// The same kid, another key: as after an accident, and for keys without a kid.
func TestRotationWithoutID(t *testing.T) {
	old, next := jwstest.Ed25519(), jwstest.Ed25519()
	server := newKeyServer(t, with(webKeyOf("", old), map[string]any{"kid": nil}))
	set, clock := server.set(t)
	wantGood(t, set, sign(t, "", old, "{}"))
	server.publish(with(webKeyOf("", next), map[string]any{"kid": nil}))
	clock.Advance(time.Minute)
	wantGood(t, set, sign(t, "", next, "{}"))
	wantBad(t, set, sign(t, "", old, "{}"), "not among those")
}

func TestRenewedInTheBackground(t *testing.T) {
	old, next := jwstest.Ed25519(), jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("old", old))
	set, clock := server.set(t)
	wantGood(t, set, sign(t, "old", old, "{}"))

	asked, release := make(chan struct{}), make(chan struct{})
	server.answers(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		w.Write(setOf(webKeyOf("next", next)))
	})
	clock.Advance(10 * time.Minute)
	wantGood(t, set, sign(t, "old", old, "{}")) // while the other end takes its time
	<-asked
	wantGood(t, set, sign(t, "old", old, "{}"))
	close(release)
	set.idle()
	wantGood(t, set, sign(t, "next", next, "{}"))
	wantBad(t, set, sign(t, "old", old, "{}"), "not among those")
	server.wantRequests(t, 2)
}

// A copy that nobody has asked for in a long time is not believed unseen.
func TestIdleSetAsksFirst(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, clock := server.set(t)
	wantGood(t, set, sign(t, "1", key, "{}"))
	server.publish(webKeyOf("2", jwstest.Ed25519()))
	clock.Advance(20 * time.Minute)
	wantBad(t, set, sign(t, "1", key, "{}"), "not among those")
}

func TestUnknownKeyFlood(t *testing.T) {
	key, mallory := jwstest.Ed25519(), jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, clock := server.set(t)
	flood := func() {
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				for j := range 20 {
					token := jwstest.Compact(fmt.Sprintf(`{"alg":"EdDSA","kid":"%d-%d"}`, i, j), "{}", jwstest.EdDSA(mallory))
					if _, err := set.Verify(t.Context(), token); err == nil {
						t.Error("accepted")
					}
				}
			})
		}
		wg.Wait()
	}
	flood()
	server.wantRequests(t, 1)
	clock.Advance(time.Minute)
	flood()
	server.wantRequests(t, 2)
	// A wrong signature by a key that is known does not ask for another copy.
	clock.Advance(time.Minute)
	wantBad(t, set, jwstest.Compact(`{"alg":"EdDSA","kid":"1"}`, "{}", jwstest.EdDSA(mallory)), "signature")
	server.wantRequests(t, 2)
	wantGood(t, set, sign(t, "1", key, "{}"))
	server.wantRequests(t, 2)
}

func TestOneRequestForAll(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t)
	asked, release := make(chan struct{}), make(chan struct{})
	server.answers(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		w.Write(setOf(webKeyOf("1", key)))
	})
	set, _ := server.set(t)
	token := sign(t, "1", key, "{}")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { wantGood(t, set, token) })
	}
	<-asked
	close(release)
	wg.Wait()
	server.wantRequests(t, 1)
}

// Who hangs up must not take the attempt along that others wait for, or that
// they may not repeat for a while.
func TestHangUp(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t)
	asked, release := make(chan struct{}), make(chan struct{})
	server.answers(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		w.Write(setOf(webKeyOf("1", key)))
	})
	set, _ := server.set(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := set.Verify(ctx, sign(t, "1", key, "{}"))
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	close(release)
	wantGood(t, set, sign(t, "1", key, "{}"))
	server.wantRequests(t, 1)
}

func TestDownAtFirst(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t)
	server.fails(http.StatusServiceUnavailable)
	var logged lockedBuffer
	set, clock := server.set(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	token := sign(t, "1", key, "{}")
	for range 10 {
		if err := wantBad(t, set, token, "status 503"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	server.wantRequests(t, 1) // for all of the ten
	if n := strings.Count(logged.String(), "status 503"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, &logged)
	}
	server.publish(webKeyOf("1", key))
	clock.Advance(time.Minute)
	wantGood(t, set, token)
}

func TestStaleCopy(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, clock := server.set(t)
	token := sign(t, "1", key, "{}")
	wantGood(t, set, token)
	server.fails(http.StatusBadGateway)
	for range 4 {
		clock.Advance(time.Hour)
		wantGood(t, set, token)
	}
	clock.Advance(time.Hour)
	err := wantBad(t, set, token, "status 502")
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "5h0m0s") {
		t.Errorf("%v", err)
	}
	server.publish(webKeyOf("1", key))
	clock.Advance(time.Minute)
	wantGood(t, set, token)
}

// Who signs in must not wait again and again for an end that is down.
func TestSlowOutage(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, clock := server.set(t)
	token := sign(t, "1", key, "{}")
	wantGood(t, set, token)
	server.fails(http.StatusBadGateway)
	clock.Advance(time.Hour)
	wantGood(t, set, token)

	asked, release := make(chan struct{}), make(chan struct{})
	server.answers(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		w.Write(setOf(webKeyOf("2", key)))
	})
	clock.Advance(time.Minute)
	wantGood(t, set, token) // although nothing is answered
	<-asked
	wantGood(t, set, token)
	close(release)
	set.idle()
	wantGood(t, set, sign(t, "2", key, "{}"))
	server.wantRequests(t, 3)
}

// What comes back is never worse than the copy.
func TestBadAnswers(t *testing.T) {
	elsewhere := newKeyServer(t)
	key := jwstest.Ed25519()
	elsewhere.publish(webKeyOf("mallory", key))
	answers := map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}, "redirect"},
		"redirect to itself": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusPermanentRedirect)
		}, "redirect"},
		"not modified, unasked": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, "304"},
		"no content":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "204"},
		"not found":             {http.NotFound, "404"},
		"garbage":               {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("\x00\xff\x1b[31m<html>")) }, "key set"},
		"nothing":               {func(http.ResponseWriter, *http.Request) {}, "key set"},
		"an empty set":          {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":[]}`)) }, "no key"},
		"only weak keys":        {func(w http.ResponseWriter, _ *http.Request) { w.Write(setOf(webKeyOf("1", weakRSA()))) }, "1024 bits"},
		"PEM":                   {func(w http.ResponseWriter, _ *http.Request) { w.Write(jwstest.PEM(key)) }, "key set"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write(setOf(webKeyOf("1", key))[:50])
		}, "unexpected EOF"},
		"huge": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, "longer than"},
		"huge headers": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "header"},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	}
	for what, a := range answers {
		t.Run(what, func(t *testing.T) {
			server := newKeyServer(t)
			server.answers(a.answer)
			set, clock := server.set(t)
			if err := set.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), a.want) {
				t.Errorf("%v, want %q", err, a.want)
			} else {
				testenv.CheckText(t, err)
			}
			good := jwstest.Ed25519()
			server.publish(webKeyOf("good", good))
			clock.Advance(time.Minute)
			wantGood(t, set, sign(t, "good", good, "{}"))
			server.answers(a.answer)
			clock.Advance(time.Hour)
			wantGood(t, set, sign(t, "good", good, "{}"))
			if _, err := set.Verify(t.Context(), sign(t, "mallory", key, "{}")); err == nil {
				t.Error("a key from elsewhere was accepted")
			}
		})
	}
	elsewhere.wantRequests(t, 0)
}

func TestSlowAnswer(t *testing.T) {
	for what, answer := range map[string]http.HandlerFunc{
		"silence": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"keys":[`))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		server := newKeyServer(t)
		server.answers(answer)
		set, _ := server.set(t, func(o *Options) { o.Timeout = 100 * time.Millisecond })
		if err := wantBad(t, set, sign(t, "1", jwstest.Ed25519(), "{}"), "within 100ms"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// One key that is no good does not take the others of an issuer along.
func TestWeakKeyIsPassedOver(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("weak", weakRSA()), webKeyOf("1", key))
	var logged lockedBuffer
	set, _ := server.set(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	wantGood(t, set, sign(t, "1", key, "{}"))
	if !strings.Contains(logged.String(), "1024 bits") {
		t.Errorf("log: %s", &logged)
	}
}

func TestNotModified(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t)
	asked := make(chan string, 10)
	server.answers(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("If-None-Match")
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(setOf(webKeyOf("1", key)))
	})
	set, clock := server.set(t)
	for i, want := range []string{"", `"one"`, `"one"`} {
		wantGood(t, set, sign(t, "1", key, "{}"))
		if got := <-asked; got != want {
			t.Errorf("request %d: If-None-Match %q, want %q", i, got, want)
		}
		clock.Advance(4 * time.Hour) // a copy that was confirmed is as good as new
	}
}

// An ETag is of one URL: elsewhere it may be that of other keys.
func TestNotModifiedElsewhere(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t)
	asked := make(chan string, 10)
	server.answers(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + r.Header.Get("If-None-Match")
		w.Header().Set("ETag", "1")
		w.Write(setOf(webKeyOf("1", key)))
	})
	at := server.URL + "/a"
	set := NewResolved("the issuer", func(context.Context) (string, error) { return at, nil }, &Options{RootCAs: testenv.RootsOf(server.Server)})
	defer set.Close()
	for _, c := range []struct{ path, want string }{{"/a", "/a"}, {"/a", "/a1"}, {"/b", "/b"}, {"/b", "/b1"}} {
		at = server.URL + c.path
		if err := set.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != c.want {
			t.Errorf("asked for %s, want %s", got, c.want)
		}
	}
}

func TestClockSetBack(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, clock := server.set(t)
	wantGood(t, set, sign(t, "1", key, "{}"))
	clock.Advance(-48 * time.Hour)
	wantGood(t, set, sign(t, "1", key, "{}"))
	server.wantRequests(t, 2)
	server.fails(500)
	clock.Advance(-48 * time.Hour)
	wantGood(t, set, sign(t, "1", key, "{}"))
}

func TestClose(t *testing.T) {
	server := newKeyServer(t)
	asked := make(chan struct{})
	server.answers(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	set, clock := server.set(t, func(o *Options) { o.Timeout = time.Hour }) // ended by Close alone
	done := make(chan error)
	go func() {
		_, err := set.Verify(t.Context(), sign(t, "1", jwstest.Ed25519(), "{}"))
		done <- err
	}()
	<-asked
	set.Close()
	if err := <-done; !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	clock.Advance(time.Hour)
	wantBad(t, set, sign(t, "1", jwstest.Ed25519(), "{}"), "")
	if err := set.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	server.wantRequests(t, 1)
	set.Close() // again
}

func TestUseDuringClose(t *testing.T) {
	server := newKeyServer(t, webKeyOf("1", jwstest.Ed25519()))
	set, _ := server.set(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { set.Verify(t.Context(), sign(t, "1", jwstest.Ed25519(), "{}")) })
		wg.Go(func() { set.Refresh(t.Context()) })
	}
	set.Close()
	wg.Wait()
}

func TestURL(t *testing.T) {
	for location, want := range map[string]string{
		"":                                "names no host",
		"http://ci.example.com/keys":      "https is needed",
		"http://127.0.0.1/keys":           "https is needed",
		"ftp://ci.example.com/keys":       "https is needed",
		"https:///keys":                   "no host",
		"https://u:s3cret@ci.example.com": "user name or password",
		"https://ci.example.com:s3cret":   "cannot be read",
	} {
		set, err := New(location, nil)
		if err == nil || set != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", location, err, want)
		}
	}
	if _, err := New("http://ci.example.com/keys", &Options{AllowLoopbackHTTP: true}); err == nil {
		t.Error("http to elsewhere was let through")
	}
}

// A URL may hold a credential in its query.
func TestQueryIsKeptQuiet(t *testing.T) {
	server := newKeyServer(t)
	server.fails(500)
	var logged lockedBuffer
	for _, host := range []string{server.URL, "https://127.0.0.1:1"} {
		set, err := New(host+"/keys?token=s3cret", &Options{RootCAs: testenv.RootsOf(server.Server), Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		if err := set.Refresh(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "/keys") {
			t.Errorf("%v", err)
		}
	}
	if strings.Contains(logged.String(), "s3cret") {
		t.Errorf("log: %s", &logged)
	}
}

func TestHTTPToLoopback(t *testing.T) {
	key := jwstest.Ed25519()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(setOf(webKeyOf("1", key))) }))
	defer server.Close()
	set, err := New(server.URL, &Options{AllowLoopbackHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	wantGood(t, set, sign(t, "1", key, "{}"))
}

func TestTLS(t *testing.T) {
	server := newKeyServer(t, webKeyOf("1", jwstest.Ed25519()))
	set, _ := server.set(t, func(o *Options) { o.RootCAs = nil })
	if err := set.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	server.wantRequests(t, 0)
}

func TestResolved(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	at, failure := server.URL, error(nil)
	resolve := func(ctx context.Context) (string, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("asked without a deadline")
		}
		return at, failure
	}
	clock := new(testenv.Clock)
	set := NewResolved("the issuer", resolve, &Options{RootCAs: testenv.RootsOf(server.Server), Now: clock.Now})
	defer set.Close()
	wantGood(t, set, sign(t, "1", key, "{}"))

	failure = errors.New("nobody\nhome")
	if err := set.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "the issuer: nobodyhome") {
		t.Errorf("%v", err)
	}
	wantGood(t, set, sign(t, "1", key, "{}"))
	for _, at = range []string{"http://" + server.Listener.Addr().String(), "file:///etc/passwd", "https://user@" + server.Listener.Addr().String(), "::", ""} {
		failure = nil
		if err := set.Refresh(t.Context()); err == nil {
			t.Errorf("%q was fetched", at)
		} else {
			testenv.CheckText(t, err)
		}
	}
	server.wantRequests(t, 1)
}
