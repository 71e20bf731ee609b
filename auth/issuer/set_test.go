package issuer

import (
	"errors"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
)

func TestSet(t *testing.T) {
	a, b, stranger := newCI(t), newCI(t), newCI(t)
	va, _ := a.verifier(t, simple())
	p := simple()
	p.Name, p.Task = "other", "other-{job_id}"
	vb, _ := b.verifier(t, p)
	set, err := NewSet(va, vb)
	if err != nil {
		t.Fatal(err)
	}
	for task, s := range map[auth.TaskID]*ci{"ci-7": a, "other-7": b} {
		id, err := set.Verify(t.Context(), s.token(nil))
		if err != nil || id.Task != task || id.Issuer != s.URL {
			t.Errorf("%+v, %v", id, err)
		}
		if !set.Issues(s.token(nil)) {
			t.Errorf("token of %s is not known", task)
		}
	}
	// Nobody speaks for another, although here all sign with one key.
	for what, c := range map[string]struct{ token, want string }{
		"not configured":  {stranger.token(nil), "is not accepted here"},
		"with a slash":    {a.token(map[string]any{"iss": a.URL + "/"}), "slash at the end"},
		"in upper case":   {a.token(map[string]any{"iss": strings.ToUpper(a.URL)}), "is not accepted here"},
		"by http":         {a.token(map[string]any{"iss": strings.Replace(a.URL, "https", "http", 1)}), "is not accepted here"},
		"no issuer":       {a.token(map[string]any{"iss": nil}), "iss is missing"},
		"a list":          {a.token(map[string]any{"iss": []string{a.URL, b.URL}}), "iss is missing"},
		"two issuers":     {signed(`{"iss":"` + a.URL + `","iss":"` + b.URL + `"}`), "cannot be read"},
		"terminal":        {a.token(map[string]any{"iss": "\x1b[2J\u202e\n"}), "is not accepted here"},
		"not base64":      {"a.*.c", "do not belong there"},
		"no token":        {"hello", "three parts"},
		"huge":            {strings.Repeat("x", 10<<20), "bytes long"},
		"huge iss":        {a.token(map[string]any{"iss": strings.Repeat("x", 16<<10)}), "is not accepted here"},
		"another's token": {strings.Join([]string{"e30", strings.Split(a.token(nil), ".")[1], "AAAA"}, "."), ""},
	} {
		if id, err := set.Verify(t.Context(), c.token); id != nil || !errors.Is(err, auth.ErrTokenInvalid) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\x1b\u202e") {
			t.Errorf("%s: %+v, %v, want %q", what, id, err, c.want)
		}
	}
	if set.Issues(stranger.token(nil)) || set.Issues("") {
		t.Error("the set says that it issued a stranger's token")
	}
	if n := stranger.discovered.Load() + stranger.fetched.Load(); n != 0 {
		t.Errorf("an issuer that is not configured was asked %d times", n)
	}

	for task, want := range map[auth.TaskID]string{"ci-7": "ci", "ci-": "ci", "other-x": "other", "ci": "", "others": "", "task-1": ""} {
		if got := set.Provider(task); got != want {
			t.Errorf("%s is a task of %q, want %q", task, got, want)
		}
	}
	if err := set.Check(t.Context()); err != nil {
		t.Error(err)
	}
	b.answers(status(500), nil)
	if err := set.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "issuer other") {
		t.Errorf("%v", err)
	}
	set.Close()
}

// A token whose payload names one issuer is verified with that issuer's keys.
func TestSetKeysApart(t *testing.T) {
	a, b := newCI(t), newCI(t)
	b.answers(nil, keysOf("1", jwstest.Ed25519()))
	va, _ := a.verifier(t, simple())
	p := simple()
	p.Name, p.Task, p.Algorithms = "other", "other-{job_id}", []string{"RS256", "EdDSA"}
	vb, _ := b.verifier(t, p)
	set, err := NewSet(va, vb)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Verify(t.Context(), a.token(map[string]any{"iss": b.URL})); !errors.Is(err, auth.ErrTokenInvalid) {
		t.Errorf("a signs for b: %v", err)
	}
}

func TestEmptySet(t *testing.T) {
	s := newCI(t)
	empty, err := NewSet()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []*Set{nil, empty, {}} {
		if _, err := set.Verify(t.Context(), s.token(nil)); !errors.Is(err, auth.ErrTokenInvalid) {
			t.Errorf("%v", err)
		}
		if set.Issues(s.token(nil)) || set.Provider("ci-7") != "" {
			t.Error("an empty set knows something")
		}
	}
}

func TestSetsThatClash(t *testing.T) {
	s := newCI(t)
	profile := func(name, issuer, task string) *Verifier {
		v, _ := s.verifier(t, Profile{Name: name, Issuer: issuer, Task: task})
		return v
	}
	first := profile("a", "https://a.example.com", "ci-{job}")
	for what, v := range map[string]*Verifier{
		"configured twice":      profile("b", "https://a.example.com", "b-{job}"),
		"two issuers are named": profile("a", "https://b.example.com", "b-{job}"),
		"the same name":         profile("b", "https://b.example.com", "ci-{job}"),
		"same name":             profile("b", "https://b.example.com", "ci-gh-{job}"),
		"have the same name":    profile("b", "https://b.example.com", "c{job}"),
	} {
		if set, err := NewSet(first, v); err == nil || set != nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
}

func FuzzUnverifiedIssuer(f *testing.F) {
	f.Add("e30.eyJpc3MiOiJodHRwczovL2EifQ.AAAA")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		iss, err := unverifiedIssuer(raw)
		if (err == nil) != (iss != "") {
			t.Errorf("%q, %v", iss, err)
		}
	})
}
