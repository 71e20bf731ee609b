package agent

import (
	"fmt"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/printable"
)

// warning tells a guest how long there is left: on a plain screen by a line, on the alternate one by the title and a bell, as
// a full-screen program shows nothing else.
func (g *guest) warning(n hold.Notice) notice {
	left := roughly(n.Left)
	line := fmt.Sprintf("the job is held for %s more, until %s.", left, clock(n.End))
	title := "ends in " + left
	switch {
	case n.Final:
		line += " This end cannot be put off."
	case g.mayControl():
		line += " To stay: stagedoor extend 30m"
		title += ": stagedoor extend 30m"
	case n.Idle:
		line += " Anything that you do here puts it off."
	}
	if n.Idle {
		line = "nothing happens here: " + line
	}
	return func(alternate bool) string {
		if alternate {
			return "\x1b]2;stagedoor: " + title + "\a\a"
		}
		return "\a\r\nstagedoor: " + line + "\r\n"
	}
}

// released tells guests that the hold is over, where their sessions go on with the job.
func released(o hold.Outcome) notice {
	return func(alternate bool) string {
		if alternate {
			return "\x1b]2;stagedoor: " + printable.Text(o.Why, maxFarewell) + "\a\a"
		}
		return "\a\r\nstagedoor: the job is held no longer: " + printable.Text(o.Why, maxFarewell) + "\r\n"
	}
}

// mayControl tells whether the guest may act upon the task itself.
func (g *guest) mayControl() bool {
	_, forced := auth.ForcedCommand(g.permissions())
	_, may := g.permissions().Extensions[auth.PermitControl]
	return may && !forced
}

// roughly writes a duration for people: 1h30m, 5m, 45s.
func roughly(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d > 90*time.Second:
		return fmt.Sprintf("%dm", int((d + 30*time.Second).Minutes()))
	}
	return fmt.Sprintf("%ds", int((d + time.Second/2).Seconds()))
}

// clock writes a time of the day for people who may be elsewhere.
func clock(t time.Time) string { return t.Format("15:04:05 MST") }
