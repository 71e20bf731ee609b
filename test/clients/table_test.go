package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	tableFile = "../../docs/clients.md"
	// versionsBegin starts what depends on the machine and is not compared.
	versionsBegin = "## Versions\n"
)

const introduction = `# Clients

What works with which SSH client. This page is generated: each ✓ is a test in
test/clients that runs the client of that name against a real gateway and a real
agent, and looks at the bytes that arrive. After a change there,

    go test ./test/clients -run TestMatrix -update

writes it anew; without -update the test fails where the page differs from what
was seen.

- ✓ works.
- – does not work, nearly always because the client has no such thing. The note
  says why.
`

const versionsIntroduction = `
Those that ran when this page was written. The test does not compare them.

`

// compareTable holds docs/clients.md against what was seen, or writes it.
func compareTable(t *testing.T, seen *results) {
	t.Helper()
	if t.Failed() {
		return
	}
	if !seen.complete() {
		if *update {
			t.Error("-update needs the whole matrix: no -run for a part of it, and no client missing")
		}
		return
	}
	want := introduction + tables(seen)
	old, err := os.ReadFile(tableFile)
	if *update {
		mustDo(t, os.WriteFile(tableFile, []byte(want+"\n"+versionsBegin+versionsIntroduction+seen.versionList()), 0o644))
		return
	}
	mustDo(t, err)
	got, _, _ := strings.Cut(string(old), "\n"+versionsBegin)
	if got != want {
		t.Errorf("%s is not what was seen; run this test with -update.\nThe file:\n%s\nSeen:\n%s", filepath.Base(tableFile), got, want)
	}
}

// complete tells whether every check was made.
func (r *results) complete() bool {
	for _, c := range clients() {
		for title, cell := range c.cells {
			if cell.check != nil && !r.works[[2]string{c.name, title}] {
				return false
			}
		}
	}
	return true
}

func (r *results) versionList() string {
	var b strings.Builder
	for _, c := range clients() {
		fmt.Fprintf(&b, "- %s: %s\n", c.name, r.versions[c.name])
	}
	return b.String()
}

func tables(seen *results) string {
	var b strings.Builder
	for _, g := range groups {
		b.WriteString("\n## " + g.title + "\n\n" + g.table(seen))
		for _, f := range g.features {
			fmt.Fprintf(&b, "- **%s**: %s.\n", f.title, f.about)
		}
	}
	return b.String()
}

// table is one table and its notes, which are numbered in the order of their
// first use.
func (g group) table(seen *results) string {
	var b strings.Builder
	var notes []string
	b.WriteString("| |")
	for _, f := range g.features {
		fmt.Fprintf(&b, " %s |", f.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(g.features)) + "\n")
	for _, c := range clients() {
		if c.programs != g.programs {
			continue
		}
		fmt.Fprintf(&b, "| %s |", c.name)
		for _, f := range g.features {
			mark := "–"
			if seen.works[[2]string{c.name, f.title}] {
				mark = "✓"
			}
			fmt.Fprintf(&b, " %s |", strings.TrimSpace(mark+" "+noteNumber(&notes, c.cells[f.title].why)))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for i, note := range notes {
		fmt.Fprintf(&b, "%s %s.\n", superscript(i+1), note)
		b.WriteString("\n")
	}
	return b.String()
}

// noteNumber is the mark of a note, which is added if it is new. No note has no
// mark.
func noteNumber(notes *[]string, note string) string {
	if note == "" {
		return ""
	}
	for i, n := range *notes {
		if n == note {
			return superscript(i + 1)
		}
	}
	*notes = append(*notes, note)
	return superscript(len(*notes))
}

func superscript(n int) string {
	digits := []rune("⁰¹²³⁴⁵⁶⁷⁸⁹")
	var b strings.Builder
	for _, d := range strconv.Itoa(n) {
		b.WriteRune(digits[d-'0'])
	}
	return b.String()
}
