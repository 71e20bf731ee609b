package agent

import "strings"

// shownScreen follows what a program writes to a terminal, as far as it must be known to write something in between: whether a
// full-screen program shows the alternate screen, and whether the last byte was the end of a character or control sequence
// (ECMA-48). Its zero value is a terminal that was just opened.
type shownScreen struct {
	alternate bool
	state     scanState
	params    []byte // of a control sequence, as long as they can be about the alternate screen
	rest      int    // bytes of a UTF-8 character that are still to come
}

type scanState int

const (
	onGround        scanState = iota
	afterEscape               // ESC
	inEscape                  // ESC and intermediate bytes, as in ESC ( B
	inSequence                // CSI
	inText                    // OSC, DCS, SOS, PM or APC: text up to BEL or ST
	escapeInText              // the first half of an ST
	maxScreenParams = 64
)

// write looks at output, in pieces of any size.
func (s *shownScreen) write(p []byte) {
	for len(p) > 0 {
		if s.state == onGround && s.rest == 0 {
			if p = p[plainBytes(p):]; len(p) == 0 {
				return
			}
		}
		s.next(p[0])
		p = p[1:]
	}
}

// plainBytes counts the bytes that p begins with which mean nothing here.
func plainBytes(p []byte) int {
	for i, b := range p {
		if b == 0x1b || b >= 0x80 {
			return i
		}
	}
	return len(p)
}

func (s *shownScreen) next(b byte) {
	if b == 0x18 || b == 0x1a { // CAN and SUB break everything off
		s.state, s.rest = onGround, 0
		return
	}
	switch s.state {
	case onGround:
		s.ground(b)
	case afterEscape:
		s.escape(b)
	case inEscape:
		if b >= 0x30 {
			s.state = onGround
		}
	case inSequence:
		s.sequence(b)
	case inText:
		switch b {
		case 0x1b:
			s.state = escapeInText
		case '\a':
			s.state = onGround
		}
	case escapeInText:
		s.state = onGround
		if b != '\\' {
			s.escape(b)
		}
	}
}

func (s *shownScreen) ground(b byte) {
	switch {
	case b == 0x1b:
		s.state, s.rest = afterEscape, 0
	case b >= 0xf0:
		s.rest = 3
	case b >= 0xe0:
		s.rest = 2
	case b >= 0xc0:
		s.rest = 1
	case b >= 0x80:
		s.rest = max(s.rest-1, 0)
	default:
		s.rest = 0
	}
}

func (s *shownScreen) escape(b byte) {
	switch {
	case b == '[':
		s.state, s.params = inSequence, s.params[:0]
	case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
		s.state = inText
	case b == 0x1b:
		s.state = afterEscape
	case b >= 0x20 && b < 0x30:
		s.state = inEscape
	default:
		if b == 'c' { // full reset
			s.alternate = false
		}
		s.state = onGround
	}
}

func (s *shownScreen) sequence(b byte) {
	switch {
	case b == 0x1b:
		s.state = afterEscape
	case b >= 0x40 && b < 0x7f:
		s.state = onGround
		if (b == 'h' || b == 'l') && namesAlternate(string(s.params)) {
			s.alternate = b == 'h'
		}
	case len(s.params) < maxScreenParams:
		s.params = append(s.params, b)
	}
}

// namesAlternate tells whether the parameters of a private mode are about the alternate screen (xterm's ctlseqs).
func namesAlternate(params string) bool {
	modes, private := strings.CutPrefix(params, "?")
	for mode := range strings.SplitSeq(modes, ";") {
		if private && (mode == "47" || mode == "1047" || mode == "1049") {
			return true
		}
	}
	return false
}

// reset returns what makes the terminal show what is written next.
func (s *shownScreen) reset() (sequence string) {
	if !s.between() {
		sequence = "\x18" // breaks off what the program has begun
	}
	if s.alternate {
		sequence += "\x1b[?1049l"
	}
	return sequence
}

// between tells whether something can be written now without breaking a character or a control sequence.
func (s *shownScreen) between() bool { return s.state == onGround && s.rest == 0 }
