package tunnel

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Codes of a [Refusal]. A reader treats a code that it does not know by
// Retry alone.
const (
	CodeBadToken    = "bad-token"   // the token or renewal does not verify: a new one is needed
	CodeExpired     = "expired"     // the token, the renewal or the task's time has run out
	CodeReplaced    = "replaced"    // a newer agent serves the task
	CodeHeld        = "held"        // another agent with a token just as new serves the task
	CodeReplayed    = "replayed"    // the token let in an agent with another key: a new one is needed
	CodeBlocked     = "blocked"     // an operator ended the registration, or refuses the task
	CodeLimit       = "limit"       // too many tunnels
	CodeVersion     = "version"     // the gateway does not speak this version of the protocol
	CodeDraining    = "draining"    // the gateway is going down: dial again, another one answers
	CodeUnavailable = "unavailable" // the gateway could not decide
)

// A Refusal says that a gateway does not take, or no longer takes, an agent's
// tunnel. It is an error on both sides: admit returns one to have it sent,
// Dial returns the one that was received, and Keep returns it when Retry is
// false.
type Refusal struct {
	Code    string `json:"code"`              // one of the constants above
	Message string `json:"message,omitempty"` // for the owner of the agent; holds no secret
	Retry   bool   `json:"retry,omitempty"`   // whether another attempt may succeed
	// RetryAfter is the least time to wait before that attempt; zero leaves
	// it to the agent, which in any case waits no longer than ten minutes.
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`

	ended bool // a tunnel that was up
}

// Error tells the code and the message.
func (r *Refusal) Error() string {
	did := "refused"
	if r.ended {
		did = "ended"
	}
	if r.Message == "" {
		return fmt.Sprintf("gateway %s the tunnel: %s", did, r.Code)
	}
	return fmt.Sprintf("gateway %s the tunnel: %s (%s)", did, r.Message, r.Code)
}

// plain returns the refusal fit to be printed by its receiver: bounded, and
// without control characters, which could steer the reader's terminal.
func (r *Refusal) plain() *Refusal {
	p := *r
	p.Code, p.Message = plain(p.Code, 64), plain(p.Message, 1024)
	p.RetryAfter = max(0, p.RetryAfter)
	return &p
}

func plain(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
