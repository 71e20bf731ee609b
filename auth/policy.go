package auth

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
	"golang.org/x/crypto/ssh"
)

// maxPolicy bounds what an agent parses, in bytes.
const maxPolicy = 16 << 10

// A policy is what guests may do at most, as a gateway tells its agents:
//
//	{"permissions": ["permit-pty"], "critical_options": {"permitopen@stagedoor": "localhost:5432"}}
type policy struct {
	Permissions     []string          `json:"permissions"`
	CriticalOptions map[string]string `json:"critical_options,omitempty"`
}

// MarshalPolicy writes down the most that guests may do, for [ParsePolicy] on
// the other side. Nil, which stands for no narrowing, becomes nothing. It fails
// on a critical option that the table does not know, and on a forced command,
// which no agent takes from a gateway; of the extensions only permissions are
// written.
func MarshalPolicy(p *ssh.Permissions) ([]byte, error) {
	if p == nil {
		return nil, nil
	}
	if err := narrowing(p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	written := policy{Permissions: []string{}, CriticalOptions: p.CriticalOptions}
	for _, name := range slices.Sorted(maps.Keys(p.Extensions)) {
		if slices.Contains(permissionNames, name) {
			written.Permissions = append(written.Permissions, name)
		}
	}
	data, err := marshalJSON(written)
	if err == nil && len(data) > maxPolicy {
		return nil, fmt.Errorf("policy: %d bytes long, %d are allowed: shorten the lists of forwardings", len(data), maxPolicy)
	}
	return data, err
}

// ParsePolicy reads what [MarshalPolicy] wrote: nothing is nil, no narrowing.
// [Intersect] the rest with what a guest was granted; it leaves the name of the
// guest and the touch of a security key alone. A permission that is not known
// permits nothing. Where anything else is not known or cannot be read, there is
// an error, and what is returned beside it permits nothing at all.
func ParsePolicy(data []byte) (*ssh.Permissions, error) {
	if len(data) == 0 {
		return nil, nil
	}
	p, err := parsePolicy(data)
	if err != nil {
		return noPermissions(), fmt.Errorf("policy: %w", plain(err))
	}
	return p, nil
}

func parsePolicy(data []byte) (*ssh.Permissions, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("%d bytes long, %d are allowed", len(data), maxPolicy)
	}
	var members map[string]strict.RawMessage
	if err := strict.Unmarshal(data, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errors.New("it is null")
	}
	var read policy
	into := map[string]any{"permissions": &read.Permissions, "critical_options": &read.CriticalOptions}
	for name, raw := range members {
		if into[name] == nil {
			return nil, fmt.Errorf("%.64q is not known", name)
		}
		if err := strict.Unmarshal(raw, into[name]); err != nil {
			return nil, err
		}
	}
	return read.permissions()
}

func (r *policy) permissions() (*ssh.Permissions, error) {
	p := noPermissions()
	for _, name := range r.Permissions {
		if slices.Contains(permissionNames, name) {
			p.Extensions[name] = ""
		}
	}
	p.Extensions[noTouchRequired] = "" // for keys to say
	maps.Copy(p.CriticalOptions, r.CriticalOptions)
	return p, narrowing(p)
}

// narrowing refuses what does more than to take away. A forced command would be
// the gateway's own to run, as a guest who trusts it with nothing.
func narrowing(p *ssh.Permissions) error {
	if _, forced := ForcedCommand(p); forced {
		return denied("%s is not for a policy", ForceCommand)
	}
	return usable(p)
}
