package agent

import (
	"context"
	"fmt"
	"io"
)

// RunVerb does what "stagedoor VERB ARGUMENTS…" asks for, with args from VERB on, and returns the exit status: 0, 1 if it failed
// and 2 if it was called wrongly. What it has to say goes to stdout and stderr. Verbs are status [--json], extend [[--for] 30m],
// resume [--status N], fail and help. A rerun is not among them, as it runs in the caller's terminal.
func RunVerb(ctx context.Context, c Controller, args []string, stdout, stderr io.Writer) int {
	fmt.Fprintln(stderr, "stagedoor: not supported")
	return 1
}

// IsVerb tells whether a word is a verb that can follow the name stagedoor, that of a rerun included.
func IsVerb(word string) bool { return false }
