package issuer

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/stagedoor/stagedoor/auth"
)

// A Template makes the name of a task of claims: text with claims in braces,
// such as "gh-{run_id}-{check_run_id}". Different values of its claims make
// different names, always:
//
//   - Letters a-z and digits of a value stand for themselves, and so does a
//     hyphen if every text between two claims has a dot in it. All else, also
//     A-Z, because names are folded, is written as _ and the two hexadecimal
//     digits of each byte.
//   - Every text between two claims has a character that no value has: a hyphen
//     or a dot. So a name can be taken apart again in one way only.
//   - Nothing is cut off. A name that is too long (63 characters) is refused,
//     and so is a value that is missing, empty, or neither text nor a whole
//     number nor true or false. A number is the same value as its digits in text.
//
// It begins with text: a letter or digit first, all of a-z, 0-9, '.', '_', '-'.
type Template struct {
	literals []string // one more than claims; the first is not empty
	claims   []string
	hyphens  bool // those of values stand for themselves
}

// maxPlaceholders is far more than fit into a name.
const maxPlaceholders = 16

// ParseTemplate reads a template, and refuses one whose names could be
// ambiguous.
func ParseTemplate(s string) (*Template, error) {
	t := &Template{}
	for rest := s; ; {
		text, after, found := strings.Cut(rest, "{")
		t.literals = append(t.literals, text)
		if !found {
			break
		}
		claim, next, closed := strings.Cut(after, "}")
		if !closed || claim == "" || strings.ContainsAny(claim, "{") {
			return nil, fmt.Errorf("task template %.200q: a claim is written as {name}", s)
		}
		t.claims = append(t.claims, claim)
		rest = next
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("task template %.200q: %w", s, err)
	}
	return t, nil
}

func (t *Template) check() error {
	switch {
	case len(t.claims) == 0:
		return errors.New("there is no claim in it, so that all jobs would be one task")
	case len(t.claims) > maxPlaceholders:
		return fmt.Errorf("there are %d claims in it, %d are allowed", len(t.claims), maxPlaceholders)
	case t.literals[0] == "":
		return errors.New("it must begin with text, which keeps its names apart from others, such as ci-")
	}
	all := strings.Join(t.literals, "")
	if folded, err := auth.ParseTaskID(all); err != nil || string(folded) != all {
		return errors.New("its text must be of a-z, 0-9, '.', '_' and '-', a letter or digit first")
	}
	t.hyphens = true
	for _, between := range t.literals[1:len(t.claims)] {
		if !strings.ContainsAny(between, ".-") {
			return errors.New("between two claims there must be a hyphen or a dot: else two jobs could have one name")
		}
		t.hyphens = t.hyphens && strings.Contains(between, ".")
	}
	return nil
}

// Prefix is what all names of the template begin with.
func (t *Template) Prefix() string { return t.literals[0] }

// execute makes the name of the task.
func (t *Template) execute(c claims) (auth.TaskID, error) {
	var b strings.Builder
	for i, name := range t.claims {
		value, err := c.text(name)
		if err != nil {
			return "", fmt.Errorf("%w, and the name of the task is made of it", err)
		}
		if strings.ContainsRune(value, unicode.ReplacementChar) {
			return "", fmt.Errorf("claim %s has characters that are not Unicode, and the name of the task is made of it", name)
		}
		b.WriteString(t.literals[i])
		t.escape(&b, value)
	}
	b.WriteString(t.literals[len(t.claims)])
	task, err := auth.ParseTaskID(b.String())
	if err != nil || string(task) != b.String() {
		return "", fmt.Errorf("the name of the task would be %.100q, made of the claims %q, and is not allowed: %w", b.String(), t.claims, err)
	}
	return task, nil
}

func (t *Template) escape(b *strings.Builder, value string) {
	const hex = "0123456789abcdef"
	for i := range len(value) {
		switch c := value[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-' && t.hyphens:
			b.WriteByte(c)
		default:
			b.WriteByte('_')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
}
