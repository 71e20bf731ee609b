package agent

import "testing"

func TestScreen(t *testing.T) {
	for _, c := range []struct {
		what               string
		output             string
		alternate, between bool
	}{
		{"nothing", "", false, true},
		{"text", "hello\r\n", false, true},
		{"vim", "\x1b[?1049h\x1b[22;0;0t\x1b[>4;2m", true, true},
		{"vim has ended", "\x1b[?1049hX\x1b[?1049l", false, true},
		{"an old program", "\x1b[?47h", true, true},
		{"several modes", "\x1b[?1;1049;25h", true, true},
		{"another mode", "\x1b[?25h", false, true},
		{"not a private mode", "\x1b[47h", false, true},
		{"reset", "\x1b[?1049h\x1bc", false, true},
		{"the cursor", "\x1b[?1049h\x1b[10;20H", true, true},
		{"begun", "\x1b", false, false},
		{"begun and broken off", "\x1b[?1049\x18h", false, true},
		{"a sequence inside another", "\x1b[?10\x1b[?1049h", true, true},
		{"half a sequence", "\x1b[?104", false, false},
		{"a title that ends as it should", "\x1b]0;[?1049h\x1b\\", false, true},
		{"half a title", "\x1b]0;make", false, false},
		{"a device control string", "\x1bP+q544e\x1b\\x", false, true},
		{"an unfinished string before a sequence", "\x1b]0;x\x1b[?1049h", true, true},
		{"a character set", "\x1b(B", false, true},
		{"half a character set", "\x1b(", false, false},
		{"UTF-8", "grün ✓ 🙂", false, true},
		{"half a character", "gr\xc3", false, false},
		{"three quarters of one", "\xf0\x9f\x99", false, false},
		{"half a character and another", "\xe2\x9cx", false, true},
		{"Latin-1", "\xfcx", false, true},
	} {
		var whole, split shownScreen
		whole.write([]byte(c.output))
		for _, b := range []byte(c.output) {
			split.write([]byte{b})
		}
		if whole.alternate != c.alternate || whole.between() != c.between {
			t.Errorf("%s: alternate %v, between %v", c.what, whole.alternate, whole.between())
		}
		if split.alternate != whole.alternate || split.between() != whole.between() {
			t.Errorf("%s: byte by byte alternate %v, between %v", c.what, split.alternate, split.between())
		}
	}
}

// FuzzScreen: however output is cut, the same comes of it.
func FuzzScreen(f *testing.F) {
	f.Add([]byte("\x1b[?1049h✓\x1b]0;x\a"), uint(3))
	f.Fuzz(func(t *testing.T, output []byte, cut uint) {
		var whole, split shownScreen
		whole.write(output)
		i := int(cut % uint(len(output)+1))
		split.write(output[:i])
		split.write(output[i:])
		if whole.alternate != split.alternate || whole.between() != split.between() {
			t.Errorf("cut at %d: %+v, whole: %+v", i, split, whole)
		}
		if len(whole.params) > maxScreenParams {
			t.Errorf("%d bytes of parameters", len(whole.params))
		}
	})
}
