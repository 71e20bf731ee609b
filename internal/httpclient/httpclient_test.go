package httpclient

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get asks a server for its body.
func get(t testing.TB, client *http.Client, at string) (status int, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", Cause(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

func TestAnswerOfBoundedLength(t *testing.T) {
	server := testenv.NewTLSServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", len(r.URL.Path)))
	}))
	client := New(Options{RootCAs: testenv.RootsOf(server), MaxBody: 10})
	if _, body, err := get(t, client, server.URL+"/234567890"); err != nil || len(body) != 10 {
		t.Errorf("of the largest size: %q, %v", body, err)
	}
	if _, body, err := get(t, client, server.URL+"/2345678901"); err == nil || !strings.Contains(err.Error(), "longer than 10 bytes") {
		t.Errorf("a byte more: %q, %v", body, err)
	}
}

// What is little on the way must not become much here.
func TestNothingIsInflated(t *testing.T) {
	server := testenv.NewTLSServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if encoding := r.Header.Get("Accept-Encoding"); encoding != "" {
			t.Errorf("%s is offered", encoding)
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(make([]byte, 1<<20))
		z.Close()
	}))
	_, body, err := get(t, New(Options{RootCAs: testenv.RootsOf(server)}), server.URL)
	if err != nil || len(body) > 64<<10 || !strings.HasPrefix(body, "\x1f\x8b") {
		t.Errorf("%d bytes: %v", len(body), err)
	}
}

func TestRedirectIsAnAnswer(t *testing.T) {
	elsewhere := testenv.NewTLSServer(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	server := testenv.NewTLSServer(t, http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	status, _, err := get(t, New(Options{RootCAs: testenv.RootsOf(server)}), server.URL)
	if status != http.StatusTemporaryRedirect || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestOnlyWhatIsSafeGoesOut(t *testing.T) {
	asked := 0
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer plain.Close()
	if _, _, err := get(t, New(Options{}), plain.URL); err == nil || asked > 0 || !strings.Contains(err.Error(), "https is needed") {
		t.Errorf("http: %v", err)
	}
	if _, _, err := get(t, New(Options{LoopbackHTTP: true}), plain.URL); err != nil || asked != 1 {
		t.Errorf("http to the loopback: %v", err)
	}
	if _, _, err := get(t, New(Options{LoopbackHTTP: true}), "http://192.0.2.1/"); err == nil || !strings.Contains(err.Error(), "https is needed") {
		t.Errorf("http to elsewhere: %v", err)
	}
	server := testenv.NewTLSServer(t, http.NotFoundHandler())
	if _, _, err := get(t, New(Options{}), server.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate by nobody that is trusted: %v", err)
	}
}

func TestOldTLS(t *testing.T) {
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.StartTLS()
	defer old.Close()
	if _, _, err := get(t, New(Options{RootCAs: testenv.RootsOf(old)}), old.URL); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("TLS 1.1: %v", err)
	}
}

// Connections are kept where that was asked for, and given back.
func TestIdleConnections(t *testing.T) {
	var from []string
	server := testenv.NewTLSServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { from = append(from, r.RemoteAddr) }))
	for _, idle := range []int{0, 1} {
		from = nil
		client := New(Options{RootCAs: testenv.RootsOf(server), Idle: idle})
		for range 2 {
			if _, _, err := get(t, client, server.URL); err != nil {
				t.Fatal(err)
			}
		}
		if same := from[0] == from[1]; same != (idle > 0) {
			t.Errorf("with %d kept, requests come from %q", idle, from)
		}
		client.CloseIdleConnections() // goleak tells when it does not
	}
}

func TestParseURL(t *testing.T) {
	for s, want := range map[string]string{
		"https://forge.example":              "",
		"https://[2001:db8::1]:8443/x?y=s3":  "",
		"http://127.0.0.1:80/x":              "",
		"http://localhost":                   "",
		"http://[::1]":                       "",
		"":                                   "names no host",
		"forge.example":                      "names no host",
		"https:forge.example":                "names no host",
		"https://:443/":                      "names no host",
		"https://forge.example:s3cret":       "cannot be read",
		"https://a:s3cret@forge.example":     "user name or password",
		"https://forge.example/#s3cret":      "fragment",
		"http://forge.example":               "https is needed",
		"http://localhost.example":           "https is needed",
		"http://127.0.0.1.example":           "https is needed",
		"file://localhost/etc/passwd":        "https is needed",
		"gopher\x1b://localhost":             "cannot be read",
		strings.Repeat("x", 1000) + "://a.b": "https is needed",
	} {
		u, err := ParseURL(s, true)
		if (err == nil) != (want == "") || err == nil && u.String() != s {
			t.Errorf("%q: %v, %v", s, u, err)
		}
		if err != nil {
			testenv.CheckText(t, err)
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", s, err, want)
			}
		}
	}
}

func TestCheckType(t *testing.T) {
	for contentType, ok := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "APPLICATION/JSON": true,
		"": false, "text/html": false, "application/jsonx": false, "application/json; charset": false, "text/\x1b[31m": false,
	} {
		err := CheckType(&http.Response{Header: http.Header{"Content-Type": {contentType}}}, "application/json")
		if (err == nil) != ok {
			t.Errorf("%q: %v", contentType, err)
		}
		if err != nil {
			testenv.CheckText(t, err)
		}
	}
}

func TestCause(t *testing.T) {
	cause := errors.New("no route\x1b[31m to host")
	for err, want := range map[error]string{
		&url.Error{Op: "Get", URL: "https://x/?token=s3cret", Err: cause}:                    "no route[31m to host",
		&url.Error{Op: "Get", URL: "https://x/?token=s3cret", Err: context.DeadlineExceeded}: context.DeadlineExceeded.Error(),
		errors.New(strings.Repeat("x", 1000)):                                                strings.Repeat("x", maxCause),
	} {
		got := Cause(err)
		if got.Error() != want || errors.Is(got, cause) {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
	if !errors.Is(Cause(&url.Error{Err: context.DeadlineExceeded}), context.DeadlineExceeded) {
		t.Error("a deadline is not known as one")
	}
}
