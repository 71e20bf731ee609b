package forge

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestParseAccount(t *testing.T) {
	for text, want := range map[string]Account{
		"github:alice":                  {Forge: "github", Login: "alice"},
		"GitHub:Alice":                  {Forge: "github", Login: "alice"},
		"github:alice#583231":           {Forge: "github", Login: "alice", ID: 583231},
		"github:#583231":                {Forge: "github", ID: 583231},
		"gitlab.example.com:bob":        {Forge: "gitlab.example.com", Login: "bob"},
		"git-1.example.com:a.b-c_d":     {Forge: "git-1.example.com", Login: "a.b-c_d"},
		"github:octo-cat_acme":          {Forge: "github", Login: "octo-cat_acme"},
		"f:9":                           {Forge: "f", Login: "9"},
		"f:x#9223372036854775807":       {Forge: "f", Login: "x", ID: 1<<63 - 1},
		"f:" + strings.Repeat("a", 255): {Forge: "f", Login: strings.Repeat("a", 255)},
	} {
		got, err := ParseAccount(text)
		if err != nil || got != want {
			t.Errorf("ParseAccount(%q) = %+v, %v; want %+v", text, got, err, want)
		}
		if again, err := ParseAccount(got.String()); err != nil || again != got {
			t.Errorf("%q becomes %q, which is read as %+v, %v", text, got, again, err)
		}
	}
}

func TestParseAccountRefuses(t *testing.T) {
	for _, text := range []string{
		"", ":", "alice", "github:", "github:#", ":alice", "github:alice#", "github:alice#0", "github:alice#-1", "github:alice#+1",
		"github:alice#01", "github:alice#1e3", "github:alice#9223372036854775808", "github:alice#1#2", "github:alice# 1", "github:alice#1\n",
		"github:a/b", "github:../etc", "github:..", "github:.", "github:.alice", "github:alice.", "github:a..b", "github:-alice",
		"github:%2e%2e", "github:a%2fb", "github:a?b", "github:a&b", "github:a b", "github: alice", "github:alice ", "github:a@b", "github:a\\b",
		"github:a\x00b", "github:a\nb", "github:a\x7fb", "github:al\u0456ce", "github:\u212aelvin", "github:ａlice", "github:a\u200bb", "github:a\xffb",
		"github:alice.keys", "github:alice.git", "github:ALICE.KEYS", "github:alice.atom",
		"git hub:alice", "github/x:alice", "-github:alice", "github.:alice", "git..hub:alice", "g\u0456thub:alice", "github@evil:alice", "https://github.com:alice",
		"github:alice:bob", strings.Repeat("f", 254) + ":a", "f:" + strings.Repeat("a", 256), "f:" + strings.Repeat("a", 1<<16),
	} {
		a, err := ParseAccount(text)
		if err == nil {
			t.Errorf("ParseAccount(%.80q) = %+v", text, a)
			continue
		}
		testenv.CheckText(t, err)
	}
}

func TestParseAccounts(t *testing.T) {
	got, err := ParseAccounts([]string{"github:alice", "github:ALICE", "github:alice#1"})
	if err != nil || len(got) != 2 {
		t.Errorf("ParseAccounts = %v, %v", got, err)
	}
	if _, err := ParseAccounts([]string{"github:alice", "github:/"}); err == nil {
		t.Error("a list with a wrong account is read")
	}
	if _, err := ParseAccounts(make([]string, 101)); err == nil || !strings.Contains(err.Error(), "101") {
		t.Errorf("a list of 101: %v", err)
	}
}

func TestLoginsOfEachKind(t *testing.T) {
	for _, test := range []struct {
		kind Kind
		ok   []string
		bad  []string
	}{
		{GitHub, []string{"a", "octo-cat", "octocat_acme", "a--b", "old-", strings.Repeat("a", 39)},
			[]string{"a.b", "_a", "a_", "a_b_c", "a_b-c", strings.Repeat("a", 40)}},
		{GitLab, []string{"a", "a.b", "a_b", "_a", strings.Repeat("a", 255)}, []string{"a.git", "a.", strings.Repeat("a", 256)}},
		{Gitea, []string{"a.b-c_d", strings.Repeat("a", 40)}, []string{"a..b", strings.Repeat("a", 41)}},
		{Forgejo, []string{"a.b"}, []string{strings.Repeat("a", 41)}},
	} {
		for _, login := range test.ok {
			if err := test.kind.check(login); err != nil {
				t.Errorf("%s: %v", test.kind, err)
			}
		}
		for _, login := range test.bad {
			if test.kind.check(login) == nil {
				t.Errorf("%s takes %q", test.kind, login)
			}
		}
	}
}

// FuzzParseAccount: what is accepted has one form, and stays one element of a
// path whatever that path is.
func FuzzParseAccount(f *testing.F) {
	for _, s := range []string{"github:alice", "github:alice#583231", "github:#1", "a.b:c.d", "x:..", "x:a%2f", "x:a/b#1", "\u212a:k"} {
		f.Add(s)
	}
	base := &url.URL{Scheme: "https", Host: "forge.example", Path: "/base"}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAccount(s)
		if err != nil {
			testenv.CheckText(t, err)
			return
		}
		if again, err := ParseAccount(a.String()); err != nil || again != a {
			t.Fatalf("%q: %+v is written %q, which is %+v, %v", s, a, a, again, err)
		}
		if !strings.EqualFold(a.String(), s) {
			t.Fatalf("%q is read as %q", s, a)
		}
		if a.Login == "" && a.ID == 0 {
			t.Fatalf("%q names nobody", s)
		}
		for _, kind := range []Kind{GitHub, GitLab, Gitea} {
			if kind.check(a.Login) == nil && base.JoinPath(a.Login+".keys").String() != "https://forge.example/base/"+a.Login+".keys" {
				t.Fatalf("%q leads to %s", s, base.JoinPath(a.Login+".keys"))
			}
		}
	})
}
