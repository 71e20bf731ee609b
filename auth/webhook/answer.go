package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode"
	"unicode/utf8"

	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// Bounds of what an answer may say, in bytes.
const (
	maxName    = 128
	maxReason  = 256
	maxCommand = 4 << 10
)

// How long answers are remembered that do not say.
const (
	unsaidFor  = 5 * time.Second // the two questions of one sign-in
	failureFor = time.Second     // no answer: a guest who tries again at once does not wait again
)

// An answer is what the webhook said. It never changes.
type answer struct {
	allow    bool
	name     string
	grant    auth.Grant // what is permitted, and until when
	command  *string
	reason   string
	cacheFor *int64 // seconds
}

// parseAnswer reads the form given in the package comment. Errors hold no value
// of it.
func parseAnswer(body []byte) (*answer, error) {
	var members map[string]strict.RawMessage
	if err := strict.Unmarshal(body, &members); err != nil {
		return nil, errors.New("it is no JSON object, or has a member twice")
	}
	if !utf8.Valid(body) {
		return nil, errors.New("it is not in UTF-8")
	}
	a := &answer{}
	var until *int64
	into := map[string]any{
		"allow": &a.allow, "name": &a.name, "permissions": &a.grant.Permissions, "permit_open": &a.grant.PermitOpen,
		"permit_listen": &a.grant.PermitListen, "force_command": &a.command, "until": &until, "reason": &a.reason, "cache_for": &a.cacheFor,
	}
	for name, raw := range members {
		if into[name] == nil {
			return nil, fmt.Errorf("%.64q is not known to this version of Stagedoor, and might be a restriction", name)
		}
		if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) || strict.Unmarshal(raw, into[name]) != nil {
			return nil, fmt.Errorf("%s is of the wrong type", name)
		}
	}
	if members["allow"] == nil {
		return nil, errors.New("allow is missing")
	}
	if until != nil {
		if *until < 1 || *until > math.MaxInt32*1000 {
			return nil, errors.New("until is no time: give seconds since 1970")
		}
		a.grant.Until = time.Unix(*until, 0)
	}
	return a, a.check(members["name"] != nil)
}

// check holds the members to their bounds.
func (a *answer) check(named bool) error {
	switch {
	case named && a.name == "" || !printable(a.name, maxName):
		return fmt.Errorf("name must be 1 to %d bytes that can be printed", maxName)
	case !printable(a.reason, maxReason):
		return fmt.Errorf("reason must be at most %d bytes that can be printed", maxReason)
	case a.command != nil && (*a.command == "" || !printable(*a.command, maxCommand)):
		return fmt.Errorf("force_command must be one line of 1 to %d bytes that can be printed", maxCommand)
	case a.cacheFor != nil && *a.cacheFor < 0:
		return errors.New("cache_for is negative")
	}
	return a.grant.Check()
}

func printable(s string, limit int) bool {
	if len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// keepFor is how long the answer is remembered.
func (a *answer) keepFor(c Config) time.Duration {
	most := c.CacheFor
	if !a.allow {
		most = c.NegativeFor
	}
	if a.cacheFor == nil {
		if a.allow {
			return min(unsaidFor, most)
		}
		return most
	}
	if *a.cacheFor > int64(most/time.Second) {
		return most
	}
	return time.Duration(*a.cacheFor) * time.Second
}

// permissions are what the answer permits now, within limit unless that is nil.
// Each call returns a value of its own.
func (a *answer) permissions(limit *ssh.Permissions, name string, now time.Time) (*ssh.Permissions, error) {
	switch {
	case !a.allow:
		return nil, fmt.Errorf("%w: the webhook refuses%s", auth.ErrDenied, a.because())
	case !a.grant.Until.IsZero() && !now.Before(a.grant.Until):
		return nil, fmt.Errorf("%w: the webhook let the guest in until %s", auth.ErrDenied, a.grant.Until.UTC().Format(time.RFC3339))
	}
	p := a.grant.Permitted()
	if a.command != nil {
		p.CriticalOptions[auth.ForceCommand] = *a.command
	}
	if limit != nil {
		forced, both := auth.ForcedCommand(limit)
		if both && a.command != nil && forced != *a.command {
			return nil, fmt.Errorf("%w: certificate and webhook force different commands", auth.ErrDenied)
		}
		p = auth.Intersect(p, limit) // which has a name
		name = auth.IdentityName(limit)
	}
	if a.name != "" {
		name = a.name
	}
	p.Extensions[auth.ExtIdentity] = name
	return p, nil
}

func (a *answer) because() string {
	if a.reason == "" {
		return ""
	}
	return ": " + a.reason
}
