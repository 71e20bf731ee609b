package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

// mistake is one thing wrong with a configuration.
type mistake struct {
	Where string // FILE:LINE, --flag or VARIABLE
	Key   string // empty: it is about the file as a whole
	Text  string // what is wrong, and what to do
	line  int    // in the file; 0: it has none
}

// Error is one line that editors can jump to. What looks like a secret is not in it.
func (m mistake) Error() string {
	parts := []string{m.Where, m.Key, oneLine(m.Text)}
	if m.Key == "" {
		parts = []string{m.Where, oneLine(m.Text)}
	}
	return cli.Hide(strings.Join(parts, ": "))
}

// oneLine keeps errors that list several lines, such as those of an
// authorized_keys file, on one.
func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// report collects all that is wrong with a configuration, so that it can be
// mended in one go.
type report struct {
	file     string            // the configuration file; empty: none
	lines    map[string]int    // where keys and sections stand in it; list items as key[0]
	outside  map[string]string // keys set by flag or variable: its name
	mistakes []mistake
	warnings []mistake
	wrong    map[string]bool // keys with a mistake
	made     []madeKey       // keys that were missing in the state directory
	partial  bool            // some of the file was not understood, so that what seems to be missing may be there
}

func newReport(file string) *report {
	return &report{file: file, lines: map[string]int{}, outside: map[string]string{}, wrong: map[string]bool{}}
}

// add records a mistake in a key. Only the first of each key counts: the others
// mostly follow from it.
func (r *report) add(key, format string, args ...any) {
	if !r.wrong[key] {
		where, line := r.where(key)
		r.append(mistake{where, key, fmt.Sprintf(format, args...), line})
	}
}

// addMissing is add for a key that is needed and not set.
func (r *report) addMissing(key, text string) {
	if !r.partial {
		r.add(key, "%s", text)
	}
}

// addLine records a mistake in a line of the file, 0 for the file as a whole.
// key may be empty.
func (r *report) addLine(line int, key, format string, args ...any) {
	if key != "" && r.wrong[key] {
		return
	}
	r.append(mistake{r.fileLine(line), key, fmt.Sprintf(format, args...), line})
}

// addItem records a mistake in item i of a list.
func (r *report) addItem(key string, i int, format string, args ...any) {
	where, line := r.whereItem(key, i)
	r.append(mistake{where, key, fmt.Sprintf(format, args...), line})
}

func (r *report) append(m mistake) {
	r.wrong[m.Key] = true
	r.mistakes = append(r.mistakes, m)
}

// warnItem records what is allowed in item i of a list, but looks like an
// oversight.
func (r *report) warnItem(key string, i int, text string) {
	where, line := r.whereItem(key, i)
	r.warnings = append(r.warnings, mistake{where, key, text, line})
}

func (r *report) ok() bool { return len(r.mistakes) == 0 }

// where tells where a key was set or, when it was not, where it would be.
func (r *report) where(key string) (string, int) {
	if name := r.outside[key]; name != "" {
		return name, 0
	}
	for k := key; ; {
		if line, ok := r.lines[k]; ok {
			return r.fileLine(line), line
		}
		i := strings.LastIndexByte(k, '.')
		if i < 0 {
			break
		}
		k = k[:i]
	}
	if r.file != "" {
		return r.file, 0
	}
	return "--" + nameOfKey.Replace(key), 0
}

func (r *report) whereItem(key string, i int) (string, int) {
	if line, ok := r.lines[fmt.Sprintf("%s[%d]", key, i)]; ok && r.outside[key] == "" {
		return r.fileLine(line), line
	}
	return r.where(key)
}

func (r *report) fileLine(line int) string {
	if line == 0 {
		return r.file
	}
	return fmt.Sprintf("%s:%d", r.file, line)
}

// all returns the mistakes in the order of the file.
func (r *report) all() []mistake {
	slices.SortStableFunc(r.mistakes, func(a, b mistake) int { return a.line - b.line })
	return r.mistakes
}

// print writes one line for each warning and mistake.
func (r *report) print(w io.Writer) {
	for _, m := range r.warnings {
		fmt.Fprintln(w, m.Error(), "(warning)")
	}
	for _, m := range r.all() {
		fmt.Fprintln(w, m.Error())
	}
}
