package auth

import (
	"errors"
	"fmt"
	"time"

	strict "github.com/go-jose/go-jose/v4/json"
)

// GrantLimits bound how much of a task guests may take, all of them together
// whatever lets them in. Gateway and agent both hold to them. In JSON those that
// set no limit are absent:
//
//	{"guests": 3, "sessions": 10, "session_time": "1h30m"}
type GrantLimits struct {
	Guests      int           // connections of guests at a time, from the first thing that each opens; 0: any number
	Sessions    int           // open channels of type session at a time; 0: any number
	SessionTime time.Duration // the longest that a guest stays connected, in whole seconds; 0: as long as it likes
}

// maxGrantLimit is far beyond what gateway and agent allow anyhow.
const maxGrantLimit = 1_000_000

// MarshalJSON writes the form given above.
func (l GrantLimits) MarshalJSON() ([]byte, error) {
	members := map[string]any{}
	for name, n := range map[string]int{"guests": l.Guests, "sessions": l.Sessions} {
		if n != 0 {
			members[name] = n
		}
	}
	if l.SessionTime != 0 {
		members["session_time"] = l.SessionTime.String()
	}
	return marshalJSON(members)
}

// UnmarshalJSON reads the form given above. A member that this version does not
// know is an error, as in a Grant, and so is a limit that would let nobody in.
func (l *GrantLimits) UnmarshalJSON(data []byte) error {
	var members map[string]strict.RawMessage
	if err := strict.Unmarshal(data, &members); err != nil {
		return plain(err)
	}
	var read GrantLimits
	for name, raw := range members {
		var err error
		switch name {
		case "guests":
			err = unmarshalLimit(raw, &read.Guests)
		case "sessions":
			err = unmarshalLimit(raw, &read.Sessions)
		case "session_time":
			err = unmarshalSessionTime(raw, &read.SessionTime)
		default:
			err = errors.New("it is not known to this version of Stagedoor, and might be a restriction")
		}
		if err != nil {
			return fmt.Errorf("%.64q: %w", name, err)
		}
	}
	*l = read
	return nil
}

func unmarshalLimit(raw []byte, n *int) error {
	if err := strict.Unmarshal(raw, n); err != nil {
		return plain(err)
	}
	return checkLimit(*n)
}

func checkLimit(n int) error {
	if n < 1 || n > maxGrantLimit {
		return fmt.Errorf("%d is no limit: write 1 or more, or leave it out", n)
	}
	return nil
}

func unmarshalSessionTime(raw []byte, d *time.Duration) error {
	var text string
	if err := strict.Unmarshal(raw, &text); err != nil {
		return plain(err)
	}
	read, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%.64q is no duration: write it as in 1h30m", text)
	}
	*d = read
	return checkSessionTime(read)
}

func checkSessionTime(d time.Duration) error {
	if d < time.Second || d%time.Second != 0 {
		return fmt.Errorf("%v is no time to stay for: write whole seconds, as in 1h30m, or leave it out", d)
	}
	return nil
}

// Check says what is wrong with limits that were not read but made.
func (l GrantLimits) Check() error {
	if l.Guests != 0 {
		if err := checkLimit(l.Guests); err != nil {
			return fmt.Errorf("limits: guests: %w", err)
		}
	}
	if l.Sessions != 0 {
		if err := checkLimit(l.Sessions); err != nil {
			return fmt.Errorf("limits: sessions: %w", err)
		}
	}
	if l.SessionTime != 0 {
		if err := checkSessionTime(l.SessionTime); err != nil {
			return fmt.Errorf("limits: session_time: %w", err)
		}
	}
	return nil
}

// TooManyGuests is what a guest is told who finds the task full.
func (l GrantLimits) TooManyGuests(task TaskID) string {
	return fmt.Sprintf("task %s has as many guests as its token allows (%d): try again when one has left, or ask whoever runs the job", task, l.Guests)
}

// TooManySessions is the same for one who asks for another session.
func (l GrantLimits) TooManySessions(task TaskID) string {
	return fmt.Sprintf("task %s has as many sessions open as its token allows (%d): end one, or try again later", task, l.Sessions)
}

// TimeOver is what a guest is told who has stayed for as long as it may.
func (l GrantLimits) TimeOver(task TaskID) string {
	return fmt.Sprintf("you were in for %v, the longest that the token of task %s allows at a time", l.SessionTime, task)
}
