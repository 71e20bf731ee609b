package wildcard

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"a", "", false}, {"", "", false},
		{"*", "a", true}, {"*", "", false}, {"**", "a", true}, {"**", "", false},
		{"a*", "a", true}, {"a*", "ab", true}, {"a*", "ba", false},
		{"*a", "a", true}, {"*a", "ba", true}, {"*a", "ab", false},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"a*a", "aba", true},
		{"a*b*c", "abc", true}, {"a*b*c", "axbxbxc", true}, {"a*b*c", "acb", false}, {"a*bc*c", "abc", false},
		{"acme/*", "acme/x/y", true}, {"acme/*", "acme", false}, {"acme/*", "evil/acme/x", false},
		{"refs/heads/*", "refs/heads/a\nb", true}, {"?", "a", false}, {"[a]", "a", false},
	} {
		if got := Match(c.pattern, c.value); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.value, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b", "ab", "c")
	f.Fuzz(func(t *testing.T, before, between, after string) {
		if strings.Contains(before+after, "*") || before+between+after == "" {
			return
		}
		if !Match(before+"*"+after, before+between+after) {
			t.Errorf("%q and %q around %q", before, after, between)
		}
		if strings.HasPrefix(between, before) || before == "" {
			return
		}
		if Match(before+"*", between) {
			t.Errorf("%q begins with %q", between, before)
		}
	})
}
