package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

var _ auth.Authorizer = (*Webhook)(nil)

// TestQuestion: what is told, and above all what is not.
func TestQuestion(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":false}`))
	key := newSigner(t, 'k').PublicKey()
	keyJSON := fmt.Sprintf(`"key":{"type":"ssh-ed25519","fingerprint":%q,"authorized_key":%q}`,
		ssh.FingerprintSHA256(key), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
	for name, test := range map[string]struct {
		tell bool
		id   auth.Identity
		task auth.Task
		want string
	}{
		"a key": {false, guest(key), auth.Task{ID: "a"},
			`"task":"a","method":"publickey","remote_address":"192.0.2.7",` + keyJSON},
		"a key, with a host": {false, guest(key), auth.Task{ID: "a", Grant: &auth.Grant{}},
			`"task":"a","method":"publickey","remote_address":"192.0.2.7",` + keyJSON},
		"no host, told": {true, guest(key), auth.Task{ID: "a"},
			`"task":"a","host":false,"method":"publickey","remote_address":"192.0.2.7",` + keyJSON},
		"a host, told": {true, guest(key), auth.Task{ID: "a", Grant: &auth.Grant{}},
			`"task":"a","host":true,"method":"publickey","remote_address":"192.0.2.7",` + keyJSON},
		"no key": {false, auth.Identity{Method: "password", Name: "oidc:<alice>", Remote: netip.MustParseAddrPort("[::ffff:192.0.2.7]:1")}, auth.Task{ID: "a"},
			`"task":"a","method":"password","name":"oidc:<alice>","remote_address":"192.0.2.7"`},
		"nothing": {false, auth.Identity{}, auth.Task{}, `"task":"","method":""`},
	} {
		t.Run(name, func(t *testing.T) {
			w := e.webhook(t, func(c *Config) { c.TellHost = test.tell })
			w.newID = func() string { return "msg_1" }
			if _, err := w.Authorize(t.Context(), test.id, test.task); !errors.Is(err, auth.ErrDenied) {
				t.Fatal(err)
			}
			asked := e.asked()
			want := `{"type":"guest.authorize","timestamp":"2026-03-01T12:00:00Z","data":{"version":1,"request_id":"msg_1",` + test.want + `}}`
			if len(asked) != 1 || string(asked[0].body) != want || asked[0].method != http.MethodPost {
				t.Errorf("asked %s, want %s", asked, want)
			}
		})
	}
}

// TestRequestIDs are different, and fit the signature.
func TestRequestIDs(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true,"cache_for":0}`))
	w := e.webhook(t, nil)
	for range 2 {
		if _, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task); err != nil {
			t.Fatal(err)
		}
	}
	asked := e.asked()
	one, two := asked[0].header.Get(headerID), asked[1].header.Get(headerID)
	if one == two || len(one) < 20 || strings.Contains(one, ".") {
		t.Errorf("IDs %q and %q", one, two)
	}
}

func TestPermissions(t *testing.T) {
	e := newEndpoint(t, nil)
	w := e.webhook(t, nil)
	key := newSigner(t, 'k').PublicKey()
	fingerprint := ssh.FingerprintSHA256(key)
	for body, want := range map[string]*ssh.Permissions{
		`{"allow":true}`: permissions(auth.DefaultPermissions().Extensions, nil, fingerprint),
		` {"allow" : true, "name":"älice", "permissions":[]} `: permissions(nil, nil, "älice"),
		`{"allow":true,"permissions":["permit-pty"],"permit_open":[],"permit_listen":["8080"],"force_command":"id"}`: permissions(
			map[string]string{"permit-pty": ""}, map[string]string{auth.PermitOpen: "", auth.PermitListen: "*:8080", auth.ForceCommand: "id"}, fingerprint),
		`{"allow":true,"until":1772366401,"permissions":["permit-gateway-ports@stagedoor"]}`:         permissions(map[string]string{auth.PermitGatewayPorts: ""}, nil, fingerprint),
		`{"allow":true,"reason":"` + strings.Repeat("x", 256) + `","cache_for":9223372036854775807}`: permissions(auth.DefaultPermissions().Extensions, nil, fingerprint),
	} {
		e.now(says(body))
		w.cache = newCache(9)
		got, err := w.Authorize(t.Context(), guest(key), task)
		if err != nil || !maps.Equal(got.Extensions, want.Extensions) || !maps.Equal(got.CriticalOptions, want.CriticalOptions) {
			t.Errorf("%s\npermits %+v, %v\nwant    %+v", body, got, err, want)
			continue
		}
		got.Extensions["x"], got.CriticalOptions["y"] = "", "" // it is ours to change
		if again, err := w.Authorize(t.Context(), guest(key), task); err != nil || !reflect.DeepEqual(again.Extensions, want.Extensions) {
			t.Errorf("%s: the next one gets %+v, %v", body, again, err)
		}
	}
}

func permissions(extensions, options map[string]string, name string) *ssh.Permissions {
	p := &ssh.Permissions{Extensions: maps.Clone(extensions), CriticalOptions: options}
	if p.Extensions == nil {
		p.Extensions = map[string]string{}
	}
	p.Extensions[auth.ExtIdentity] = name
	return p
}

// TestRefusals are told from failures.
func TestRefusals(t *testing.T) {
	for body, reason := range map[string]string{
		`{"allow":false}`: "refuses",
		`{"allow":false,"reason":"not on call","name":"alice","permissions":["permit-pty"]}`: "not on call",
		`{"allow":true,"until":1772366400}`:                                                  "until 2026-03-01T12:00:00Z",
		`{"allow":true,"until":1,"permissions":[]}`:                                          "until 1970",
	} {
		e := newEndpoint(t, says(body))
		p, err := e.webhook(t, nil).Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
		if !errors.Is(err, auth.ErrDenied) || errors.Is(err, ErrUnavailable) || p != nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, %v", body, p, err)
			continue
		}
		testenv.CheckText(t, err)
	}
}

// TestWeakKeyIsNotAskedAbout, whatever the webhook would say.
func TestWeakKeyIsNotAskedAbout(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	e := newEndpoint(t, says(`{"allow":true}`))
	if p, err := e.webhook(t, nil).Authorize(t.Context(), guest(key), task); !errors.Is(err, auth.ErrDenied) || p != nil {
		t.Errorf("got %v, %v", p, err)
	}
	if n := len(e.asked()); n != 0 {
		t.Errorf("%d questions", n)
	}
}

// answered replies with a status, headers and a body.
func answered(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// TestAnswersOfNoUse admit nobody.
func TestAnswersOfNoUse(t *testing.T) {
	const yes = `{"allow":true}`
	replies := map[string]http.HandlerFunc{
		"201": answered(201, "application/json", yes),
		"204": answered(204, "application/json", ""),
		"206": answered(206, "application/json", yes),
		"302": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
		},
		"308 to http": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusPermanentRedirect)
		},
		"401":         answered(401, "application/json", yes),
		"404":         answered(404, "application/json", yes),
		"429":         answered(429, "application/json", yes),
		"500":         answered(500, "application/json", yes),
		"no type":     answered(200, "", yes),
		"text":        answered(200, "text/plain", yes),
		"html":        answered(200, "text/html", yes),
		"two types":   answered(200, "application/json, text/html", yes),
		"odd type":    answered(200, "application/jsonp", yes),
		"unprintable": answered(200, "\u009b31m/\u202e", yes),
		"huge":        answered(200, "application/json", yes+strings.Repeat(" ", maxBody)),
		"hangs up":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"broken off":  brokenOff(yes),
		"endless":     endless,
		"huge headers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			says(yes)(w, r)
		},
		"gzip, unasked": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			says("\x1f\x8b\x08\x00")(w, r)
		},
	}
	for _, body := range []string{
		``, `null`, `true`, `[]`, `"allow"`, `{}`, `{"allow":null}`, `{"allow":"true"}`, `{"allow":1}`, `{"allow":[true]}`, `{"Allow":true}`, `{"ALLOW":true}`,
		`{"allow":true}{"allow":true}`, `{"allow":true} x`, `{"allow":true,}`, `{"allow":false,"allow":true}`, `{"allow":true,"Allow":true}`,
		`{"allow":true,"permitopen":[]}`, `{"allow":true,"extra":1}`, `{"allow":true,"":1}`, `{"allow":true,"\u001b[2J":1}`, `{"allow":true,"name":null}`,
		`{"allow":true,"name":""}`, `{"allow":true,"name":7}`, `{"allow":true,"name":"a\nb"}`, `{"allow":true,"name":"a\u202eb"}`, "{\"allow\":true,\"name\":\"a\xff\"}",
		`{"allow":true,"name":"` + strings.Repeat("x", 129) + `"}`, `{"allow":true,"reason":"a\u001bb"}`, `{"allow":true,"reason":"` + strings.Repeat("x", 257) + `"}`,
		`{"allow":true,"permissions":null}`, `{"allow":true,"permissions":"permit-pty"}`, `{"allow":true,"permissions":["permit-everything"]}`, `{"allow":true,"permissions":[null]}`, `{"allow":true,"permissions":["permit-pty",7]}`,
		`{"allow":true,"permit_open":null}`, `{"allow":true,"permit_open":["localhost"]}`, `{"allow":true,"permit_open":["localhost:0"]}`, `{"allow":true,"permit_open":["a:1,b:2"]}`, `{"allow":true,"permit_open":[null]}`,
		`{"allow":true,"permit_listen":["localhost:x"]}`, `{"allow":true,"permit_listen":{}}`, `{"allow":true,"force_command":""}`, `{"allow":true,"force_command":null}`, `{"allow":true,"force_command":"a\nb"}`, `{"allow":true,"force_command":"a\u0000"}`,
		`{"allow":true,"until":0}`, `{"allow":true,"until":-1}`, `{"allow":true,"until":1.5}`, `{"allow":true,"until":"2026-03-01T13:00:00Z"}`, `{"allow":true,"until":99999999999999}`, `{"allow":true,"until":1e400}`, `{"allow":true,"until":null}`,
		`{"allow":true,"cache_for":-1}`, `{"allow":true,"cache_for":1.5}`, `{"allow":true,"cache_for":"60"}`, `{"allow":true,"cache_for":null}`, `{"allow":true,"cache_for":9223372036854775808}`,
		`{"allow":true,"permissions":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}`, strings.Repeat(`{"allow":`, 7000),
	} {
		replies[fmt.Sprintf("%.60s", body)] = says(body)
	}
	for name, reply := range replies {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, reply)
			p, err := e.webhook(t, nil).Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
			if !errors.Is(err, ErrUnavailable) || errors.Is(err, auth.ErrDenied) || p != nil {
				t.Fatalf("got %v, %v", p, err)
			}
			testenv.CheckText(t, err)
			if n := len(e.asked()); n > 2 { // net/http may dial again, and what was sent is the same
				t.Errorf("%d questions", n)
			}
		})
	}
}

// brokenOff promises more than it sends.
func brokenOff(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)+1))
		io.WriteString(w, body)
		panic(http.ErrAbortHandler)
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for {
		if _, err := io.WriteString(w, strings.Repeat(" ", 4096)); err != nil {
			return
		}
	}
}

// TestCache: how long answers are remembered, by who said what.
func TestCache(t *testing.T) {
	for _, test := range []struct {
		body string
		keep time.Duration
	}{
		{`{"allow":true}`, unsaidFor},
		{`{"allow":true,"cache_for":0}`, 0},
		{`{"allow":true,"cache_for":60}`, time.Minute},
		{`{"allow":true,"cache_for":301}`, 5 * time.Minute},
		{`{"allow":true,"cache_for":9223372036854775807}`, 5 * time.Minute},
		{`{"allow":false}`, 5 * time.Second},
		{`{"allow":false,"cache_for":0}`, 0},
		{`{"allow":false,"cache_for":2}`, 2 * time.Second},
		{`{"allow":false,"cache_for":3600}`, 5 * time.Second},
		{`nonsense`, failureFor},
	} {
		e := newEndpoint(t, says(test.body))
		w := e.webhook(t, nil)
		ask := func(want int) {
			t.Helper()
			w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
			if n := len(e.asked()); n != want {
				t.Errorf("%s: %d questions, want %d", test.body, n, want)
			}
		}
		ask(1)
		if test.keep > 0 {
			e.clock.Advance(test.keep - 1)
			ask(0)
			e.clock.Advance(1)
		}
		ask(1)
	}
}

// TestUntilEndsACachedAnswer: it is looked at whenever somebody signs in.
func TestUntilEndsACachedAnswer(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true,"until":1772366410,"cache_for":60}`))
	w := e.webhook(t, nil)
	id := guest(newSigner(t, 'k').PublicKey())
	if _, err := w.Authorize(t.Context(), id, task); err != nil {
		t.Fatal(err)
	}
	e.clock.Advance(10 * time.Second)
	if _, err := w.Authorize(t.Context(), id, task); !errors.Is(err, auth.ErrDenied) {
		t.Errorf("after until: %v", err)
	}
}

// TestAnswersAreForOneQuestion: nothing that was asked about may differ.
func TestAnswersAreForOneQuestion(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true,"cache_for":60}`))
	w := e.webhook(t, nil)
	one := guest(newSigner(t, 'k').PublicKey())
	ask := func(id auth.Identity, task auth.Task, want int) {
		t.Helper()
		if _, err := w.Authorize(t.Context(), id, task); err != nil {
			t.Fatal(err)
		}
		if n := len(e.asked()); n != want {
			t.Errorf("%d questions, want %d", n, want)
		}
	}
	ask(one, task, 1)
	port := one
	port.Remote = netip.MustParseAddrPort("192.0.2.7:1")
	ask(port, task, 0)
	ask(one, auth.Task{ID: task.ID, Grant: &auth.Grant{}}, 0) // it was not told
	ask(one, auth.Task{ID: "other"}, 1)
	address := one
	address.Remote = netip.MustParseAddrPort("192.0.2.8:50000")
	ask(address, task, 1)
	method := one
	method.Method = "hostbased"
	ask(method, task, 1)
	ask(guest(newSigner(t, 'l').PublicKey()), task, 1)
	ask(one, task, 0)
}

// TestCacheIsBounded in answers; those of use stay.
func TestCacheIsBounded(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true,"cache_for":60}`))
	w := e.webhook(t, func(c *Config) { c.MaxEntries = 5 })
	id := guest(newSigner(t, 'k').PublicKey())
	for i := range 20 {
		w.Authorize(t.Context(), id, auth.Task{ID: auth.TaskID(fmt.Sprint("task-", i))})
		w.Authorize(t.Context(), id, task)
	}
	if len(w.cache.entries) != 5 || w.cache.recent.Len() != 5 || len(w.cache.flights) != 0 {
		t.Errorf("%d answers are remembered, %d questions under way", len(w.cache.entries), len(w.cache.flights))
	}
	if n := len(e.asked()); n != 21 {
		t.Errorf("%d questions, want 21", n)
	}
}

// TestSingleFlight: many want the same answer, one question is asked, even if the
// answer is not to be remembered.
func TestSingleFlight(t *testing.T) {
	asked, release := make(chan struct{}, 100), make(chan struct{})
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-release
		says(`{"allow":true,"cache_for":0}`)(w, r)
	})
	w := e.webhook(t, nil)
	first := make(chan error)
	ask := func() error {
		_, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
		return err
	}
	go func() { first <- ask() }()
	<-asked
	var wait sync.WaitGroup
	var started sync.WaitGroup
	for range 50 {
		started.Add(1)
		wait.Go(func() {
			q, _, _ := w.question(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
			turn := w.cache.turn(q.cacheKey(), e.clock.Now())
			started.Done()
			if turn.lead || turn.flight == nil {
				t.Error("a second question")
				return
			}
			<-turn.flight.done
			if turn.flight.err != nil || !turn.flight.answer.allow {
				t.Errorf("got %v", turn.flight.err)
			}
		})
	}
	started.Wait()
	wait.Go(func() {
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	wait.Wait()
	if n := len(e.asked()); n > 2 { // the last may have come late
		t.Errorf("%d questions", n)
	}
}

// TestLeaderGivesUp: a guest hangs up, and the next who wants the answer asks.
func TestLeaderGivesUp(t *testing.T) {
	asked := make(chan struct{})
	e := newEndpoint(t, func(_ http.ResponseWriter, r *http.Request) { asked <- struct{}{}; <-r.Context().Done() })
	w := e.webhook(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, second := make(chan error), make(chan error)
	ask := func(ctx context.Context, result chan error) {
		_, err := w.Authorize(ctx, guest(newSigner(t, 'k').PublicKey()), task)
		result <- err
	}
	go ask(ctx, first)
	<-asked
	go ask(t.Context(), second)
	e.now(says(`{"allow":true}`))
	cancel()
	if err := <-first; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
}

// TestSlowWebhook refuses after Timeout; who tries again at once does not wait
// again.
func TestSlowWebhook(t *testing.T) {
	e := newEndpoint(t, never)
	w := e.webhook(t, func(c *Config) { c.Timeout = 20 * time.Millisecond })
	for range 5 {
		_, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		testenv.CheckText(t, err)
	}
	if n := len(e.asked()); n > 1 {
		t.Errorf("%d questions", n)
	}
}

// TestGuestsDoNotPileUp: two questions at once, eight guests that wait, the others
// are refused at once; and all end.
func TestGuestsDoNotPileUp(t *testing.T) {
	asked, release := make(chan struct{}, 100), make(chan struct{})
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-release
		says(`{"allow":true}`)(w, r)
	})
	w := e.webhook(t, func(c *Config) { c.MaxConcurrent, c.Timeout = 2, time.Minute })
	results := make(chan error, 100)
	for i := range 30 {
		go func() {
			_, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), auth.Task{ID: auth.TaskID(fmt.Sprint("task-", i))})
			results <- err
		}()
	}
	for range 20 {
		if err := <-results; !errors.Is(err, ErrUnavailable) {
			t.Errorf("a guest too many: %v", err)
		}
	}
	<-asked
	<-asked
	if len(asked) != 0 {
		t.Error("more than two questions at once")
	}
	close(release)
	for range 10 {
		if err := <-results; err != nil {
			t.Errorf("a guest that waited: %v", err)
		}
	}
	if n := len(e.asked()); n != 10 || w.waiting.Load() != 0 || len(w.slots) != 0 {
		t.Errorf("%d questions, %d waiting, %d places taken", n, w.waiting.Load(), len(w.slots))
	}
}

// TestBudget: strangers with ever new keys do not make ever more questions, and
// what is remembered is of use meanwhile.
func TestBudget(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true,"cache_for":60}`))
	w := e.webhook(t, func(c *Config) { c.PerMinute = 5 })
	ask := func() (admitted int) {
		for c := range byte(20) {
			if _, err := w.Authorize(t.Context(), guest(newSigner(t, c+1).PublicKey()), task); err == nil {
				admitted++
			} else if !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		}
		return admitted
	}
	if n := ask(); n != 5 || len(e.asked()) != 5 {
		t.Errorf("%d guests are let in, want 5", n)
	}
	if n := ask(); n != 5 || len(e.asked()) != 0 {
		t.Errorf("%d guests are let in with nothing left, want 5", n)
	}
	e.clock.Advance(24 * time.Second)
	if n := ask(); n != 7 || len(e.asked()) != 2 {
		t.Errorf("%d guests are let in after 24 s, want 7", n)
	}
}

// TestPanicEndsTheFlight: what goes wrong in our own code leaves nobody waiting.
func TestPanicEndsTheFlight(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true}`))
	w := e.webhook(t, func(c *Config) { c.Log = slog.New(panicking{}) })
	e.now(says(`{"allow":true,"reason":"x"}`))
	ask := func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task)
	}
	ask()
	if len(w.cache.flights) != 0 || len(w.slots) != 0 {
		t.Error("the question is still under way")
	}
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool { panic("log") }

func TestReasonIsLogged(t *testing.T) {
	var log bytes.Buffer
	e := newEndpoint(t, says(`{"allow":true,"reason":"on call","name":"alice"}`))
	w := e.webhook(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	if _, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), `user=alice`) || !strings.Contains(log.String(), `reason="on call"`) {
		t.Errorf("log: %s", &log)
	}
}

func TestCertificates(t *testing.T) {
	ca, stranger := newSigner(t, 'c'), newSigner(t, 's')
	e := newEndpoint(t, says(`{"allow":true,"permissions":["permit-pty","permit-agent-forwarding","permit-exec@stagedoor"],"force_command":"id"}`))
	w := e.webhook(t, func(c *Config) { c.Authorities = []ssh.PublicKey{ca.PublicKey()} })

	p, err := w.Authorize(t.Context(), guest(newCertificate(t, ca, nil)), task)
	want := permissions(map[string]string{"permit-pty": "", "permit-exec@stagedoor": ""}, map[string]string{auth.ForceCommand: "id"}, "alice@example.com")
	if err != nil || !maps.Equal(p.Extensions, want.Extensions) || !maps.Equal(p.CriticalOptions, want.CriticalOptions) {
		t.Errorf("got %+v, %v, want %+v", p, err, want)
	}
	same := func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{auth.ForceCommand: "id"} }
	if _, err := w.Authorize(t.Context(), guest(newCertificate(t, ca, same)), task); err != nil {
		t.Errorf("the same command forced: %v", err)
	}
	endless := func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }
	e.asked()
	if _, err := w.Authorize(t.Context(), guest(newCertificate(t, ca, endless)), task); err != nil || strings.Contains(string(e.asked()[0].body), "valid_before") {
		t.Errorf("without an end: %v", err)
	}

	option := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} }
	}
	if _, err := w.Authorize(t.Context(), guest(newCertificate(t, ca, option("force-command", "ls"))), task); !errors.Is(err, auth.ErrDenied) {
		t.Errorf("two commands forced: %v", err)
	}
	e.asked()

	broken := newCertificate(t, ca, nil)
	broken.ValidPrincipals = []string{"root"}
	for name, cert := range map[string]*ssh.Certificate{
		"of a stranger":      newCertificate(t, stranger, nil),
		"changed":            broken,
		"of a host":          newCertificate(t, ca, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }),
		"of the past":        newCertificate(t, ca, func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Unix()) }),
		"of the future":      newCertificate(t, ca, func(c *ssh.Certificate) { c.ValidAfter = uint64(noon.Unix()) + 1 }),
		"without principals": newCertificate(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = nil }),
		"with an odd option": newCertificate(t, ca, option("x", "y")),
		"from elsewhere":     newCertificate(t, ca, option("source-address", "198.51.100.0/24")),
		"that must be typed": newCertificate(t, ca, option("verify-required", "")),
		"for an empty name":  newCertificate(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} }),
	} {
		if p, err := w.Authorize(t.Context(), guest(cert), task); !errors.Is(err, auth.ErrDenied) || p != nil {
			t.Errorf("certificate %s: %v, %v", name, p, err)
		}
	}
	without := e.webhook(t, nil)
	if p, err := without.Authorize(t.Context(), guest(newCertificate(t, ca, nil)), task); !errors.Is(err, auth.ErrDenied) || p != nil {
		t.Errorf("without authorities: %v, %v", p, err)
	}
	if n := len(e.asked()); n != 0 {
		t.Errorf("%d questions about certificates that count for nothing", n)
	}
}

// TestNewSecretsSignToo: while secrets are being changed, either side may be the
// first.
func TestNewSecretsSignToo(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true,"cache_for":0}`))
	w := e.webhook(t, func(c *Config) { c.Secrets = []Secret{newSecret(t, 'b'), newSecret(t, 'a')} })
	for _, c := range []byte{'a', 'b'} {
		e.secret = newSecret(t, c)
		if _, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := func() Config {
		return Config{URL: "https://ci.example/stagedoor?x=1", Secrets: []Secret{newSecret(t, 'a')}}
	}
	w, err := New(good())
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	for name, change := range map[string]func(*Config){
		"no URL":       func(c *Config) { c.URL = "" },
		"no host":      func(c *Config) { c.URL = "https:///x" },
		"http":         func(c *Config) { c.URL = "http://ci.example/?token=s3cret" },
		"http, local":  func(c *Config) { c.URL = "http://127.0.0.1/" },
		"http, DNS":    func(c *Config) { c.URL, c.AllowHTTP = "http://localhost.ci.example/", true },
		"a password":   func(c *Config) { c.URL = "https://u:s3cret@ci.example/" },
		"unreadable":   func(c *Config) { c.URL = "https://u:s3cret@ci.exa mple/%zz" },
		"a fragment":   func(c *Config) { c.URL = "https://ci.example/#s3cret" },
		"a file":       func(c *Config) { c.URL = "file:///s3cret" },
		"no secret":    func(c *Config) { c.Secrets = nil },
		"empty secret": func(c *Config) { c.Secrets = []Secret{{}} },
		"nil CA":       func(c *Config) { c.Authorities = []ssh.PublicKey{nil} },
		"CA of a CA": func(c *Config) {
			c.Authorities = []ssh.PublicKey{newCertificate(t, newSigner(t, 'c'), nil)}
		},
	} {
		c := good()
		change(&c)
		if w, err := New(c); err == nil {
			w.Close()
			t.Errorf("%s: no error", name)
		} else {
			testenv.CheckText(t, err)
		}
	}
}

// TestTLS: an endpoint that nobody vouches for is not asked.
func TestTLS(t *testing.T) {
	e := newEndpoint(t, says(`{"allow":true}`))
	w := e.webhook(t, func(c *Config) { c.RootCAs = nil })
	if p, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task); !errors.Is(err, ErrUnavailable) || p != nil {
		t.Errorf("got %v, %v", p, err)
	}
	if n := len(e.asked()); n != 0 {
		t.Errorf("%d questions", n)
	}
}

// TestPlainHTTP is for loopback addresses, where it is allowed.
func TestPlainHTTP(t *testing.T) {
	server := httptest.NewServer(says(`{"allow":true}`))
	t.Cleanup(server.Close)
	w, err := New(Config{URL: server.URL, Secrets: []Secret{newSecret(t, 'a')}, AllowHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if _, err := w.Authorize(t.Context(), guest(newSigner(t, 'k').PublicKey()), task); err != nil {
		t.Error(err)
	}
}

// FuzzAnswer: whatever comes, an answer that is taken permits nothing that there
// is not, and fits a log.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"allow":true}`, `{"allow":false,"reason":"x"}`, `{"allow":true,"permissions":["permit-pty"],"permit_open":["a:1"],"permit_listen":["1"],"force_command":"x","until":1772370000,"cache_for":60,"name":"a"}`, `null`, `{"allow":true,"name":null}`, "{\"allow\":true,\"name\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if err != nil {
			testenv.CheckText(t, err)
			return
		}
		if keep := a.keepFor(Config{}.withDefaults()); keep < 0 || keep > 5*time.Minute {
			t.Fatalf("%q is remembered for %v", body, keep)
		}
		p, err := a.permissions(nil, "somebody", noon)
		if err != nil {
			testenv.CheckText(t, err)
			return
		}
		if !a.allow || auth.IdentityName(p) == "" || !printable(auth.IdentityName(p), maxName) {
			t.Fatalf("%q permits %+v", body, p)
		}
		if err := auth.AllowGlobal(p, auth.Guest, "keepalive@openssh.com", nil); err != nil {
			t.Fatalf("%q makes permissions that cannot be used: %v", body, err)
		}
	})
}
