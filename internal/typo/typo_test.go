package typo

import (
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	names := []string{"restrict", "pty", "no-pty", "permitopen", "permitlisten"}
	for typed, want := range map[string]string{
		"restrict":                        "restrict",
		"restrcit":                        "restrict",
		"ptty":                            "pty",
		"px":                              "",
		"no-ppty":                         "no-pty",
		"permitopne":                      "permitopen",
		"permitclose":                     "",
		"":                                "",
		strings.Repeat("restrict", 1<<20): "",
	} {
		if got := Closest(typed, names); got != want {
			t.Errorf("Closest(%.40q) = %q, want %q", typed, got, want)
		}
	}
	if got := Closest("bat", []string{"cat", "hat"}); got != "cat" {
		t.Errorf("of two that are as close %q, want the first", got)
	}
}

func TestLevenshtein(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"same", "same", 0}} {
		if got, back := levenshtein(c.a, c.b), levenshtein(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("from %q to %q %d, back %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}
