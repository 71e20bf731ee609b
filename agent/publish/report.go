package publish

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
)

// A Report is how a task fares, with how it is entered. It holds no secret: who has it still needs a key to enter.
type Report struct {
	hold.Status
	SSHCommand       string    `json:"ssh_command,omitempty"`
	EndToEndCommand  string    `json:"end_to_end_command,omitempty"`
	CertifiedCommand string    `json:"certified_command,omitempty"`
	Fingerprint      string    `json:"fingerprint,omitempty"` // SHA-256, of the host key that end-to-end guests see
	Until            time.Time `json:"until,omitzero"`        // the gateway lets nobody in any more
	Job              string    `json:"job,omitempty"`         // its name in the CI system
	Page             string    `json:"page,omitempty"`        // of the job, in a browser
}

// A Variable is a part of a Report under the name of an environment variable.
type Variable struct{ Name, Value string }

// Variables are the parts of a report that scripts want, always the same ones. Times are RFC 3339, in UTC; what is not known is
// empty.
func (r Report) Variables() []Variable {
	outcome := ""
	if r.Outcome != nil {
		outcome = string(r.Outcome.Result)
	}
	return []Variable{
		{"STAGEDOOR_TASK", r.Task},
		{"STAGEDOOR_STATE", string(r.State)},
		{"STAGEDOOR_HELD", strconv.FormatBool(r.Held)},
		{"STAGEDOOR_DEADLINE", timestamp(r.Deadline)},
		{"STAGEDOOR_GUESTS", strings.Join(r.names(), ",")},
		{"STAGEDOOR_SSH_COMMAND", r.SSHCommand},
		{"STAGEDOOR_END_TO_END_COMMAND", r.EndToEndCommand},
		{"STAGEDOOR_FINGERPRINT", r.Fingerprint},
		{"STAGEDOOR_OUTCOME", outcome},
		{"STAGEDOOR_WHY", ci.Clean(r.Why)},
		{"STAGEDOOR_JOB", ci.Clean(r.Job)},
		{"STAGEDOOR_PAGE", ci.Clean(r.Page)},
	}
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// names are the guests', each once and fit for a log.
func (r Report) names() []string {
	var names []string
	seen := map[string]bool{}
	for _, g := range r.Guests {
		name := ci.Clean(g.Identity)
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// News is what has happened, in a sentence without times: while it stays the same, there is nothing new but the deadline.
func (r Report) News() string {
	guests := strings.Join(r.names(), ", ")
	switch {
	case r.State == hold.Ended && r.Why != "":
		return "It is over: " + ci.Clean(r.Why) + "."
	case r.State == hold.Ended:
		return "It is over."
	case r.State == hold.Connecting && r.Held:
		return "The gateway cannot be reached; the job is held."
	case r.State == hold.Connecting:
		return "The gateway cannot be reached."
	case guests != "" && r.State == hold.Idle:
		return guests + ": attached, but idle."
	case guests != "":
		return guests + ": attached."
	case r.Held:
		return "Nobody is attached; the job is held."
	}
	return "Nobody is attached."
}

// Ends says when the hold is over, as a time and from now; empty when the job is not held.
func (r Report) Ends(now time.Time) string {
	if !r.Held || r.Deadline.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", r.Deadline.UTC().Format("15:04:05 UTC"), In(r.Deadline.Sub(now)))
}

// In says how long it is until something, to the minute where that is more than two.
func In(d time.Duration) string {
	switch minutes := int(d.Round(time.Minute) / time.Minute); {
	case d <= 0:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("in %d s", int((d+time.Second-1)/time.Second))
	case minutes < 120:
		return fmt.Sprintf("in %d minutes", minutes)
	default:
		return fmt.Sprintf("in %d h %d min", minutes/60, minutes%60)
	}
}
