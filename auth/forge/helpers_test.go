package forge

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when tests with a clock of their own begin.
var noon = testenv.Noon

func newPublicKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// line is how a forge publishes a key.
func line(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

// A person has an account on a fake forge.
type person struct {
	login string
	keys  string // as in /USER.keys
	extra string // more members for each key in the API
	state string // GitLab's
}

// A fake is a forge of one kind, with real TLS. Faults are injected by before.
type fake struct {
	*httptest.Server
	kind  Kind
	clock *testenv.Clock

	mu     sync.Mutex // guards what follows
	people map[int64]person
	asked  []string // method, path and query of each request, and [etag] where one was sent
	tokens []string // credentials that came in, "" for none
	before func(w http.ResponseWriter, r *http.Request) (done bool)
	noETag bool
}

func newFake(t testing.TB, kind Kind) *fake {
	t.Helper()
	f := &fake{kind: kind, people: map[int64]person{}, clock: new(testenv.Clock)}
	f.Server = testenv.NewTLSServer(t, f)
	return f
}

// resolver asks this forge under the name "forge". change may be nil.
func (f *fake) resolver(t testing.TB, change func(*Config)) *Resolver {
	t.Helper()
	c := Config{Forges: []Forge{{Name: "forge", Kind: f.kind, URL: f.URL}}, RootCAs: testenv.RootsOf(f.Server), Now: f.clock.Now}
	if change != nil {
		change(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func (f *fake) set(id int64, p person) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.people[id] = p
}

func (f *fake) remove(id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.people, id)
}

// fault has fn answer first; nil takes it back.
func (f *fake) fault(fn func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = fn
}

// always answers every request with a status.
func always(status int, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		return true
	}
}

// requests returns those since the last call.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	asked := r.URL.RequestURI()
	if etag := r.Header.Get("If-None-Match"); etag != "" {
		asked += " [etag]"
	}
	f.asked = append(f.asked, asked)
	f.tokens = append(f.tokens, r.Header.Get("Authorization")+r.Header.Get("PRIVATE-TOKEN"))
	before := f.before
	f.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.Path, "/api/"); ok {
		_, path, _ = strings.Cut(path, "/")
		f.serveAPI(w, r, strings.Split(path, "/"))
		return
	}
	login, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".keys")
	_, p, known := f.find(login)
	if !ok || !known {
		http.NotFound(w, r)
		return
	}
	f.reply(w, r, "text/plain; charset=utf-8", p.keys)
}

func (f *fake) find(login string) (int64, person, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, p := range f.people {
		if strings.EqualFold(p.login, login) {
			return id, p, true
		}
	}
	return 0, person{}, false
}

func (f *fake) byID(s string) (int64, person, bool) {
	id, _ := strconv.ParseInt(s, 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.people[id]
	return id, p, ok
}

// serveAPI is as much of each API as is used.
func (f *fake) serveAPI(w http.ResponseWriter, r *http.Request, path []string) {
	query := r.URL.Query()
	switch {
	case f.kind == GitHub && len(path) == 2 && path[0] == "user":
		id, p, ok := f.byID(path[1])
		f.user(w, r, id, p, ok)
	case f.kind == GitLab && len(path) == 1 && query.Get("username") != "":
		id, p, ok := f.find(query.Get("username"))
		users := "[]"
		if ok {
			users = "[" + userJSON(id, p) + "]"
		}
		f.reply(w, r, "application/json", users)
	case f.kind == GitLab && len(path) == 2:
		if r.Header.Get("PRIVATE-TOKEN") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		id, p, ok := f.byID(path[1])
		f.user(w, r, id, p, ok)
	case f.kind == Gitea && len(path) == 2 && path[1] == "search":
		id, p, ok := f.byID(query.Get("uid"))
		data := ""
		if ok {
			data = userJSON(id, p)
		}
		f.reply(w, r, "application/json", `{"ok":true,"data":[`+data+`]}`)
	case len(path) == 2:
		id, p, ok := f.find(path[1])
		f.user(w, r, id, p, ok)
	case len(path) == 3 && path[2] == "keys":
		_, p, ok := f.find(path[1])
		if f.kind == GitLab {
			_, p, ok = f.byID(path[1])
		}
		f.keys(w, r, p, ok)
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) user(w http.ResponseWriter, r *http.Request, id int64, p person, ok bool) {
	if !ok {
		http.NotFound(w, r)
		return
	}
	f.reply(w, r, "application/json; charset=utf-8", userJSON(id, p))
}

func userJSON(id int64, p person) string {
	return fmt.Sprintf(`{"id":%d,"login":%q,"username":%q,"state":%q,"name":"Some Body","plan":{"x":[1,null]}}`, id, p.login, p.login, p.state)
}

func (f *fake) keys(w http.ResponseWriter, r *http.Request, p person, ok bool) {
	if !ok {
		http.NotFound(w, r)
		return
	}
	var list []string
	for text := range strings.Lines(p.keys) {
		if strings.TrimSpace(text) == "" {
			continue
		}
		list = append(list, fmt.Sprintf(`{"id":7,"title":"laptop","key":%q%s}`, strings.TrimSpace(text), p.extra))
	}
	f.reply(w, r, "application/json", "["+strings.Join(list, ",")+"]")
}

func (f *fake) reply(w http.ResponseWriter, r *http.Request, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	f.mu.Lock()
	noETag := f.noETag
	f.mu.Unlock()
	if !noETag {
		h := fnv.New64()
		h.Write([]byte(body))
		etag := fmt.Sprintf(`W/"%x"`, h.Sum64())
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	io.WriteString(w, body)
}

func account(t testing.TB, s string) Account {
	t.Helper()
	a, err := ParseAccount(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wantKeys looks an account up and compares.
func wantKeys(t testing.TB, r *Resolver, a string, want ...ssh.PublicKey) {
	t.Helper()
	got, err := r.Keys(t.Context(), account(t, a))
	if err != nil {
		t.Fatalf("Keys(%s): %v", a, err)
	}
	if lines(got) != lines(want) {
		t.Fatalf("Keys(%s) =\n%s, want\n%s", a, lines(got), lines(want))
	}
}

func lines(keys []ssh.PublicKey) string {
	text := ""
	for _, key := range keys {
		text += line(key)
	}
	return text
}
