package ci

import (
	"regexp"
	"strings"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// maxLine is beyond what anybody reads, and beyond every command that is printed to be copied.
const maxLine = 4 << 10

// escapeSequences are those of ECMA-48: control sequences, control strings with what they carry, and the two-byte ones.
var escapeSequences = regexp.MustCompile("(?s)\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[]PX^_].*?(?:\x07|\x1b\\\\|$)|\x1b[ -/]*.?")

// hashes begin ##[command] and ##teamcity[, anywhere in a line.
var hashes = regexp.MustCompile("##+")

// Clean makes one line of a text that others may have a say in, for a log that a CI system reads commands from: without what moves
// a cursor, and without what the runners of GitHub, Azure or TeamCity take for a command.
func Clean(s string) string {
	s = printable.Text(escapeSequences.ReplaceAllLiteralString(s, ""), maxLine)
	if trimmed := strings.TrimLeft(s, " "); strings.HasPrefix(trimmed, "::") {
		s = strings.TrimLeft(trimmed, ": ") // ::command:: counts at the beginning of a line
	}
	return hashes.ReplaceAllLiteralString(s, "#")
}
