package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

// defaultExtension is what extend adds where nothing else is said.
const defaultExtension = 30 * time.Minute

// verbNames are what can follow the name stagedoor.
var verbNames = []string{"status", "extend", "resume", "fail", "rerun", "help"}

const verbsHelp = `usage: stagedoor VERB

  status [--json]      how the task fares
  extend [30m]         keep the job for so long from now on
  resume [--status N]  let the job go on; with N it ends with that status
  fail                 end the job as failed
  rerun                run the command of the job again
`

// IsVerb tells whether a word is a verb that can follow the name stagedoor, rerun included.
func IsVerb(word string) bool { return slices.Contains(verbNames, word) }

// RunVerb does what "stagedoor VERB ARGUMENTS…" asks for, with args from VERB on, and returns the exit status: 0, 1 if it failed
// and 2 if it was called wrongly. What it has to say goes to stdout and stderr. Verbs are status [--json], extend [[--for] 30m],
// resume [--status N], fail and help. A rerun is not among them, as it runs in the caller's terminal.
func RunVerb(ctx context.Context, c Controller, args []string, stdout, stderr io.Writer) int {
	err := runVerb(ctx, c, args, stdout)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "stagedoor: %v\n", err)
	if _, wrong := errors.AsType[usageError](err); wrong {
		io.WriteString(stderr, verbsHelp)
		return 2
	}
	return 1
}

// usageError is for who called a verb wrongly.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func runVerb(ctx context.Context, c Controller, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return usageError{"which verb?"}
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "status":
		return statusVerb(ctx, c, args, stdout)
	case "extend":
		return extendVerb(ctx, c, args, stdout)
	case "resume":
		return resumeVerb(ctx, c, args, stdout)
	case "fail":
		if len(args) > 0 {
			return unexpected(args)
		}
		_, err := c.Fail(ctx)
		return said(stdout, err, "the job ends as failed")
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, verbsHelp)
		return err
	}
	return usageError{fmt.Sprintf("there is no verb %.32q", verb)}
}

func unexpected(args []string) error { return usageError{fmt.Sprintf("what is %.32q?", args[0])} }

// said writes what a verb has done, unless it failed.
func said(stdout io.Writer, err error, words string) error {
	if err == nil {
		_, err = fmt.Fprintln(stdout, "stagedoor: "+words)
	}
	return err
}

func extendVerb(ctx context.Context, c Controller, args []string, stdout io.Writer) error {
	d := defaultExtension
	text, rest := option(args, "--for")
	if text == "" && len(rest) > 0 {
		text, rest = rest[0], rest[1:]
	}
	if len(rest) > 0 {
		return unexpected(rest)
	}
	if text != "" {
		var err error
		if d, err = time.ParseDuration(text); err != nil || d <= 0 {
			return usageError{fmt.Sprintf("%.32q is no duration: write 30m, or 1h30m", text)}
		}
	}
	s, err := c.Extend(ctx, d)
	words := fmt.Sprintf("the job is held until %s, for %s", clock(s.Deadline), roughly(time.Until(s.Deadline)))
	if s.Deadline.Equal(s.Hard) {
		words += "; that is its end, which cannot be put off"
	}
	return said(stdout, err, words)
}

func resumeVerb(ctx context.Context, c Controller, args []string, stdout io.Writer) error {
	text, rest := option(args, "--status")
	if len(rest) > 0 {
		return unexpected(rest)
	}
	var status *int
	words := "the job goes on"
	if text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 255 {
			return usageError{fmt.Sprintf("%.32q is no exit status: give a number from 0 to 255", text)}
		}
		status, words = &n, fmt.Sprintf("the job goes on, with status %d", n)
	}
	_, err := c.Resume(ctx, status)
	return said(stdout, err, words)
}

// option takes the value of an option that args may begin with, in either form. An option without a value is left.
func option(args []string, name string) (value string, rest []string) {
	if len(args) >= 1 {
		if value, ok := strings.CutPrefix(args[0], name+"="); ok && value != "" {
			return value, args[1:]
		}
	}
	if len(args) >= 2 && args[0] == name {
		return args[1], args[2:]
	}
	return "", args
}

func statusVerb(ctx context.Context, c Controller, args []string, stdout io.Writer) error {
	asJSON := len(args) > 0 && args[0] == "--json"
	if asJSON {
		args = args[1:]
	}
	if len(args) > 0 {
		return unexpected(args)
	}
	s, err := c.Status(ctx)
	switch {
	case err != nil:
		return err
	case asJSON:
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	_, err = io.WriteString(stdout, describe(s))
	return err
}

// describe writes a status for people.
func describe(s hold.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "task %s: %s\n", s.Task, s.State)
	for _, g := range s.Guests {
		fmt.Fprintf(&b, "attached: %s since %s\n", g.Identity, clock(g.Since))
	}
	if s.Held {
		fmt.Fprintf(&b, "%s\nheld until %s, for %s; until %s at most\n", s.Reason, clock(s.Deadline), roughly(time.Until(s.Deadline)), clock(s.Hard))
	}
	if s.Rerun != nil {
		fmt.Fprintf(&b, "the last rerun ended with status %d\n", *s.Rerun)
	}
	if s.Outcome != nil {
		fmt.Fprintf(&b, "the hold is over: %s\n", s.Outcome.Why)
	}
	return b.String()
}
