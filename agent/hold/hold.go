// Package hold decides how long a job that has failed is kept for its guests.
//
// Three clocks run while a job is held, and at no other time: how long it waits for a first guest, how long it stays after the
// last one has left or done anything, and the hard end. A Clock is the arithmetic of them. It does nothing by itself: whoever
// drives it tells what happened and when, and asks what follows.
//
//	c := hold.NewClock(hold.Settings{}, now)
//	c.Attach(now)
//	c.Extend(now, 30*time.Minute)
//	if !now.Before(c.End()) {
//		// the hold is over
//	}
//
// With start for the beginning of the hold,
//
//	end  = min(hard, max(soft, pinned))
//	hard = start + Hard, at most Latest
//	soft = start + Wait until somebody attaches, from then on the last activity or departure + Grace
//
// and an extension by d makes pinned max(pinned, now + d), never beyond hard.
package hold

import (
	"fmt"
	"strings"
	"time"
)

// Settings are the three clocks. A field that is zero means its default; what is to be zero is None.
type Settings struct {
	// Wait is how long the job waits for its first guest: 10 minutes. None: it does not wait, and is held only for guests who are
	// there already.
	Wait time.Duration
	// Grace is how long it stays after the last guest has left, or after those who are there did anything: 5 minutes.
	Grace time.Duration
	// Hard is how long it is held at most: 60 minutes.
	Hard time.Duration
	// Latest, unless zero, is when the hold ends at the latest: a job's own timeout less Margin.
	Latest time.Time
}

// None stands for a duration of zero in Settings.
const None time.Duration = -1

// Margin is how long before the timeout of the job itself a hold should end, so that the job can still finish in order.
const Margin = 2 * time.Minute

// The defaults of Settings.
const (
	DefaultWait  = 10 * time.Minute
	DefaultGrace = 5 * time.Minute
	DefaultHard  = time.Hour
)

// Exactly returns d as a field of Settings, where zero means the default: None unless d is positive.
func Exactly(d time.Duration) time.Duration {
	if d <= 0 {
		return None
	}
	return d
}

// Or returns s with what it leaves open taken from t. Of two values for Latest the earlier one counts.
func (s Settings) Or(t Settings) Settings {
	s.Wait, s.Grace, s.Hard = or(s.Wait, t.Wait), or(s.Grace, t.Grace), or(s.Hard, t.Hard)
	s.Latest = earlier(s.Latest, t.Latest)
	return s
}

// Capped returns s with Hard no longer than the one given, unless that is zero.
func (s Settings) Capped(hard time.Duration) Settings {
	if hard != 0 {
		s.Hard = min(or(s.Hard, DefaultHard), hard)
	}
	return s
}

func or(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// earlier returns the earlier of two times, of which zero ones mean never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// A Command is what the job runs, or ran.
type Command struct {
	Args []string `json:"args,omitempty"` // with the program's name; none: not known
	Dir  string   `json:"dir,omitempty"`  // where
}

// String returns the command as a person would type it: arguments that a shell would read in another way are quoted.
func (c Command) String() string {
	words := make([]string, len(c.Args))
	for i, arg := range c.Args {
		words[i] = quote(arg)
	}
	return strings.Join(words, " ")
}

// quote makes one word of POSIX sh.
func quote(arg string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if arg != "" && strings.IndexFunc(arg, func(r rune) bool { return !plain(r) }) < 0 {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// A Reason is why a job is held.
type Reason struct {
	Command Command `json:"command"`
	Status  int     `json:"status"` // that it ended with
}

// String says it in words for a log.
func (r Reason) String() string {
	switch {
	case len(r.Command.Args) == 0:
		return "the job is held"
	case r.Status == 0:
		return fmt.Sprintf("%s has ended well", r.Command)
	}
	return fmt.Sprintf("%s failed with status %d", r.Command, r.Status)
}

// A Result is how a hold ended.
type Result string

// Every way in which a hold can end.
const (
	Resumed  Result = "resumed"  // somebody let the job go on
	Failed   Result = "failed"   // somebody ended it as failed
	Expired  Result = "expired"  // its time was over
	Lost     Result = "lost"     // the agent has ended, or the gateway let it in no more
	Canceled Result = "canceled" // the job was, or whoever asked for the hold has gone
)

// An Outcome is how a hold ended, and by whom.
type Outcome struct {
	Result Result `json:"result"`
	By     string `json:"by,omitempty"`     // who resumed or failed it, for people
	Status *int   `json:"status,omitempty"` // with which the job is to end, where a resumption said so
	Why    string `json:"why"`              // in words, for guests and the log
}

// ExitStatus is what the command hold ends with: 1 when somebody failed the job, otherwise 0. A hold that ends by itself must
// not turn success into failure.
func (o Outcome) ExitStatus() int {
	if o.Result == Failed {
		return 1
	}
	return 0
}
