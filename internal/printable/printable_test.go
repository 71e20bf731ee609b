package printable

import (
	"errors"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		s     string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"alice", 5, "alice"},
		{"alice", 4, "alic"},
		{"a\x1b[31m\r\n\tb\x00", 100, "a[31mb"},
		{"zoë", 3, "zo"},
		{"\xff\xfe�ok", 100, "ok"},
		{"right\u202eleft", 100, "rightleft"},
		{"ë", 0, ""},
	} {
		if got := Text(c.s, c.limit); got != c.want {
			t.Errorf("Text(%q, %d) = %q, want %q", c.s, c.limit, got, c.want)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("a\nb")
	err := Error(cause, 100)
	if err.Error() != "ab" || errors.Is(err, cause) {
		t.Errorf("%q, wraps its cause: %v", err, errors.Is(err, cause))
	}
}

func FuzzText(f *testing.F) {
	f.Add("zoë\x1b", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, limit)
		if got := Text(s, limit); len(got) > limit || !utf8.ValidString(got) || Text(got, limit) != got {
			t.Errorf("Text(%q, %d) = %q", s, limit, got)
		}
	})
}
