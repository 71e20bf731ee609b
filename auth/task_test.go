package auth

import (
	"regexp"
	"strings"
	"testing"
)

func TestParseTaskID(t *testing.T) {
	for in, want := range map[string]TaskID{
		"a": "a", "7": "7", "task-1234": "task-1234", "Task_1.B": "task_1.b", strings.Repeat("A", 63): TaskID(strings.Repeat("a", 63)), "a..b": "a..b", "a-": "a-",
	} {
		if got, err := ParseTaskID(in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "-a", ".a", "_a", strings.Repeat("a", 64), "a b", "a/b", "a\\b", "a@b", "a:b", "a%b", "a\n", "a\x00", "é", "ſ", "\u212a", "a\u212a", "١", "*", "-oProxyCommand=x", " a", "a ",
	} {
		if got, err := ParseTaskID(in); err == nil {
			t.Errorf("%q is %q", in, got)
		}
	}
}

func FuzzParseTaskID(f *testing.F) {
	for _, s := range []string{"task-1234", "A", "", "-a", "\u212a", "a\xff"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`\A[a-z0-9][a-z0-9._-]{0,62}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTaskID(s)
		folded := strings.Map(foldASCII, s)
		if (err == nil) != form.MatchString(folded) || err == nil && string(got) != folded || err != nil && got != "" {
			t.Fatalf("%q: %q, %v", s, got, err)
		}
		if again, err2 := ParseTaskID(string(got)); err == nil && (err2 != nil || again != got) {
			t.Fatalf("%q became %q", got, again)
		}
	})
}
