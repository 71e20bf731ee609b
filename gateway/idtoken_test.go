package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/auth/issuer"
	"github.com/stagedoor/stagedoor/auth/jwks"
	"github.com/stagedoor/stagedoor/gateway"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// withIssuer has a gateway take the ID tokens of GitLab jobs.
func withIssuer(t *testing.T, i *testenv.Issuer) func(*gateway.Settings) {
	t.Helper()
	roots := testenv.NewForge(t).Roots() // all servers of httptest have the same certificate
	v, err := issuer.New(issuer.GitLabCI(i.URL+"/gitlab"), "https://gateway.example.com", &issuer.Options{Keys: jwks.Options{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := issuer.NewSet(v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	return func(s *gateway.Settings) { s.Issuers = set }
}

// TestIDTokens: the gateway names the task of a job, and no job comes in as
// another one's host or by a token for somebody else.
func TestIDTokens(t *testing.T) {
	i := testenv.NewIssuer(t)
	w := newWorld(t, withIssuer(t, i))
	token := func(change map[string]any) string {
		claims := map[string]any{"iss": i.URL + "/gitlab", "namespace_id": "7", "project_id": "2", "job_id": "4711"}
		for name, value := range change {
			claims[name] = value
		}
		return i.Token("https://gateway.example.com", claims)
	}
	dial := func(task, token string) (tunnel.Welcome, error) {
		_, key, _ := ed25519.GenerateKey(rand.Reader)
		l, err := w.tunnelDialer(task, token, key, testenv.Signer(t)).Dial(t.Context())
		if err != nil {
			return tunnel.Welcome{}, err
		}
		t.Cleanup(func() { l.CloseNow() })
		return l.Welcome(), nil
	}
	for _, name := range []string{"", "gl-4712"} {
		welcome, err := dial(name, token(map[string]any{"job_id": "4712", "iat": time.Now().Unix() + int64(len(name))}))
		if err != nil || welcome.Task != "gl-4712" {
			t.Errorf("with the name %q: task %q, %v", name, welcome.Task, err)
		}
	}
	for name, test := range map[string]struct{ task, token, code string }{
		"another job's task":     {"gl-1", token(nil), tunnel.CodeBadToken},
		"another audience":       {"", i.Token("https://other.example.com", map[string]any{"iss": i.URL + "/gitlab", "job_id": "1"}), tunnel.CodeBadToken},
		"another issuer":         {"", token(map[string]any{"iss": i.URL + "/other"}), tunnel.CodeBadToken},
		"expired":                {"", token(map[string]any{"iat": 1000, "nbf": 1000, "exp": 2000}), tunnel.CodeExpired},
		"from the future":        {"", token(map[string]any{"iat": time.Now().Add(time.Hour).Unix(), "exp": time.Now().Add(2 * time.Hour).Unix()}), tunnel.CodeBadToken},
		"no job":                 {"", token(map[string]any{"job_id": ""}), tunnel.CodeBadToken},
		"an own token, unnamed":  {"", w.token("task-1", time.Now()), tunnel.CodeBadToken},
		"an own token, reserved": {"gl-1", w.token("gl-1", time.Now()), tunnel.CodeBadToken},
	} {
		if _, err := dial(test.task, test.token); refusalCode(err) != test.code {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}
	i.Close()
	fresh := testenv.NewIssuer(t)
	w = newWorld(t, withIssuer(t, fresh))
	raw := fresh.Token("https://gateway.example.com", map[string]any{"iss": fresh.URL + "/gitlab", "job_id": "1"})
	fresh.Close()
	if _, err := dial("", raw); refusalCode(err) != tunnel.CodeUnavailable {
		t.Errorf("while the issuer is down: %v, want %s", err, tunnel.CodeUnavailable)
	}
}

func refusalCode(err error) string {
	r, ok := errors.AsType[*tunnel.Refusal](err)
	if !ok {
		return ""
	}
	return r.Code
}
