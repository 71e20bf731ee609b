package auth

import (
	"fmt"
	"time"

	strict "github.com/go-jose/go-jose/v4/json"
)

// GrantHold says how long the agent holds a job that has failed for its guests;
// package agent/hold says what the clocks mean. In JSON its members are
// durations as in "1h30m", and those which say nothing are absent:
//
//	{"wait": "10m", "grace": "5m", "hard": "1h"}
type GrantHold struct {
	Wait  *time.Duration // for the first guest; nil: the agent decides
	Grace *time.Duration // after the last guest; nil: the agent decides
	Hard  *time.Duration // in all, which the agent can only make shorter; nil: the agent decides
}

func (h *GrantHold) members() map[string]**time.Duration {
	return map[string]**time.Duration{"wait": &h.Wait, "grace": &h.Grace, "hard": &h.Hard}
}

// MarshalJSON writes the form given above.
func (h GrantHold) MarshalJSON() ([]byte, error) {
	members := map[string]string{}
	for name, d := range h.members() {
		if *d != nil {
			members[name] = (*d).String()
		}
	}
	return marshalJSON(members)
}

// UnmarshalJSON reads the form given above. A member that this version does not
// know is an error, as in a Grant.
func (h *GrantHold) UnmarshalJSON(data []byte) error {
	var members map[string]string
	if err := strict.Unmarshal(data, &members); err != nil {
		return plain(err)
	}
	var read GrantHold
	into := read.members()
	for name, text := range members {
		if into[name] == nil {
			return fmt.Errorf("%.64q is not known to this version of Stagedoor, and might be a restriction", name)
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%s: %.64q is no duration: write it as in 1h30m", name, text)
		}
		*into[name] = &d
	}
	*h = read
	return nil
}
