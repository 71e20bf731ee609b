package main

import (
	"fmt"
	"io"
	"strings"
)

// mistake is one thing wrong with a configuration.
type mistake struct {
	Where string // FILE:LINE, --flag or VARIABLE
	Key   string // empty: it is about the file as a whole
	Text  string // what is wrong, and what to do
}

// Error is one line that editors can jump to.
func (m mistake) Error() string {
	parts := []string{m.Where, m.Key, oneLine(m.Text)}
	if m.Key == "" {
		parts = []string{m.Where, oneLine(m.Text)}
	}
	return strings.Join(parts, ": ")
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
}

func newReport(file string) *report {
	return &report{file: file, lines: map[string]int{}, outside: map[string]string{}, wrong: map[string]bool{}}
}

// add records a mistake in a key. Only the first of each key counts: the others
// mostly follow from it.
func (r *report) add(key, format string, args ...any) { r.addAt(r.where(key), key, format, args...) }

// addItem records a mistake in item i of a list.
func (r *report) addItem(key string, i int, format string, args ...any) {
	r.mistakes = append(r.mistakes, mistake{r.whereItem(key, i), key, fmt.Sprintf(format, args...)})
	r.wrong[key] = true
}

func (r *report) addAt(where, key, format string, args ...any) {
	if r.wrong[key] {
		return
	}
	if key != "" {
		r.wrong[key] = true
	}
	r.mistakes = append(r.mistakes, mistake{where, key, fmt.Sprintf(format, args...)})
}

// warn records what is allowed and looks like an oversight.
func (r *report) warn(where, key, text string) {
	r.warnings = append(r.warnings, mistake{where, key, text})
}

func (r *report) ok() bool { return len(r.mistakes) == 0 }

// where tells where a key was set or, when it was not, where it would be.
func (r *report) where(key string) string {
	if name := r.outside[key]; name != "" {
		return name
	}
	for k := key; ; {
		if line, ok := r.lines[k]; ok {
			return fmt.Sprintf("%s:%d", r.file, line)
		}
		i := strings.LastIndexByte(k, '.')
		if i < 0 {
			break
		}
		k = k[:i]
	}
	if r.file != "" {
		return r.file
	}
	return "--" + nameOfKey.Replace(key)
}

func (r *report) whereItem(key string, i int) string {
	if line, ok := r.lines[fmt.Sprintf("%s[%d]", key, i)]; ok && r.outside[key] == "" {
		return fmt.Sprintf("%s:%d", r.file, line)
	}
	return r.where(key)
}

// print writes one line for each mistake and warning.
func (r *report) print(w io.Writer) {
	for _, m := range r.warnings {
		fmt.Fprintln(w, m.Error(), "(warning)")
	}
	for _, m := range r.mistakes {
		fmt.Fprintln(w, m.Error())
	}
}
