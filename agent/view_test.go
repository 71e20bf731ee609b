package agent

import (
	"bytes"
	"testing"
)

// TestViewWaitsForItsPlace: words never break up a character or a control sequence.
func TestViewWaitsForItsPlace(t *testing.T) {
	var out bytes.Buffer
	v := &view{server: new(Server), out: &out, terminal: true}
	words := func(text string) notice {
		return func(alternate bool) string {
			if alternate {
				text = "title"
			}
			return "<" + text + ">"
		}
	}
	for _, step := range []struct{ output, words, want string }{
		{"", "at once", "<at once>"},
		{"\x1b[3", "", "\x1b[3"},
		{"", "dropped", ""},
		{"", "later", ""},
		{"1mred", "", "1mred<later>"},
		{"gr\xc3", "", "gr\xc3"},
		{"", "behind ü", ""},
		{"\xbc", "", "\xbc<behind ü>"},
		{"\x1b[?1049h", "", "\x1b[?1049h"},
		{"", "a line", "<title>"},
		{"\x1b[?104", "", "\x1b[?104"},
	} {
		out.Reset()
		if step.words != "" {
			v.say(words(step.words))
		} else if _, err := v.Write([]byte(step.output)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != step.want {
			t.Errorf("%q: shown %q, want %q", step.output+step.words, got, step.want)
		}
	}
	out.Reset()
	v.end("over\r\n")
	v.end("again")
	v.say(words("too late"))
	if got := out.String(); got != "\x18\x1b[?1049l\r\nover\r\n" {
		t.Errorf("the last words are %q", got)
	}
}

// TestViewOfPipes: what a program reads there must not be mixed up.
func TestViewOfPipes(t *testing.T) {
	var out, aside bytes.Buffer
	v := &view{server: new(Server), out: &out, aside: &aside}
	v.say(func(bool) string { return "words" })
	v.end("over\r\n")
	if out.Len() > 0 || aside.String() != "over\r\n" {
		t.Errorf("%q, and aside %q", out.String(), aside.String())
	}
}
