package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/crypto/ssh"
)

// A Grant says who may enter a task, what they may do there, and until when. It
// travels in the host token. In JSON:
//
//	{"authorized_keys": ["ssh-ed25519 AAAA… alice"], "permissions": ["permit-pty"], "until": 1767225600,
//	 "permit_open": ["localhost:5432"], "permit_listen": ["localhost:8080"], "accounts": ["github:alice#583231"],
//	 "hold": {"hard": "1h"}, "limits": {"guests": 3}}
//
// A member that this version does not know is an error: it might be a
// restriction.
type Grant struct {
	// AuthorizedKeys are lines as in an authorized_keys file, with options.
	AuthorizedKeys []string
	// Permissions are what they may do at most; the options of each key narrow
	// it further. Nil (null or absent in JSON) stands for DefaultPermissions,
	// an empty list for nothing.
	Permissions []string
	// Until is when it ends, in whole seconds: nobody is admitted from then on.
	// Zero: no such time.
	Until time.Time
	// PermitOpen is where they may forward to: host:port as in permitopen= of
	// an authorized_keys line, at most 4 KiB in all. Nil: anywhere; an empty
	// list: nowhere. With a list, Unix sockets of the host are out of reach.
	PermitOpen []string
	// PermitListen is the same for what they may have the host listen on, as in
	// permitlisten=, so that a port alone will do.
	PermitListen []string
	// Accounts are those on forges whose keys may enter like those of
	// AuthorizedKeys without options: forge:login, forge:login#id or forge:#id,
	// at most 100. Package forge says what they mean, and looks their keys up.
	Accounts []string
	// Hold bounds how long a job is held for them. Nil: the agent decides.
	Hold *GrantHold
	// Limits bound how much of the task they may take.
	Limits GrantLimits
	// OneTimePassword has the agent make a password and show it in the job's log: it
	// lets in one guest, who may do what the others may at most.
	OneTimePassword bool
}

// maxAccounts bounds what is looked up for one task.
const maxAccounts = 100

// accountSyntax holds an account to what no forge, shell or log reads in another
// way.
var accountSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}:([A-Za-z0-9_][A-Za-z0-9._-]{0,254}(#[1-9][0-9]{0,18})?|#[1-9][0-9]{0,18})$`)

// CheckAccount says what is wrong with one entry of Grant.Accounts, going by its
// form alone.
func CheckAccount(entry string) error {
	if !accountSyntax.MatchString(entry) {
		return fmt.Errorf("account %.64q: write forge:login, such as github:alice, or github:alice#583231 with the number that the account keeps when it changes its name", entry)
	}
	return nil
}

// maxForwards bounds each list of forwardings, in bytes: what a grant, a key and
// a gateway ask for has to fit into a guest certificate together.
const maxForwards = 4 << 10

// members are the names in JSON and what they are read into.
func (g *Grant) members(until **jwt.NumericDate) map[string]any {
	return map[string]any{
		"authorized_keys": &g.AuthorizedKeys,
		"permissions":     &g.Permissions,
		"until":           until,
		"permit_open":     &g.PermitOpen,
		"permit_listen":   &g.PermitListen,
		"accounts":        &g.Accounts,
		"hold":            &g.Hold,
		"limits":          &g.Limits,

		"one_time_password": &g.OneTimePassword,
	}
}

// MarshalJSON writes the form given above.
func (g Grant) MarshalJSON() ([]byte, error) {
	members := map[string]any{"authorized_keys": g.AuthorizedKeys}
	if g.AuthorizedKeys == nil {
		members["authorized_keys"] = []string{}
	}
	for name, list := range map[string][]string{"permissions": g.Permissions, "permit_open": g.PermitOpen, "permit_listen": g.PermitListen, "accounts": g.Accounts} {
		if list != nil {
			members[name] = list
		}
	}
	if !g.Until.IsZero() {
		members["until"] = g.Until.Unix()
	}
	if g.Hold != nil {
		members["hold"] = g.Hold
	}
	if g.Limits != (GrantLimits{}) {
		members["limits"] = g.Limits
	}
	if g.OneTimePassword {
		members["one_time_password"] = true
	}
	return marshalJSON(members)
}

// UnmarshalJSON reads the form given above. It does not check what the members
// say; see Check.
func (g *Grant) UnmarshalJSON(data []byte) error {
	var members map[string]strict.RawMessage
	if err := strict.Unmarshal(data, &members); err != nil {
		return fmt.Errorf("grant: %w", plain(err))
	}
	var read Grant
	var until *jwt.NumericDate
	into := read.members(&until)
	for name, raw := range members {
		if into[name] == nil {
			return fmt.Errorf("grant: %.64q is not known to this version of Stagedoor, and might be a restriction", name)
		}
		if err := strict.Unmarshal(raw, into[name]); err != nil {
			return fmt.Errorf("grant: %s: %w", name, plain(err))
		}
	}
	if until != nil {
		t, err := claimTime("until", until)
		if err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		read.Until = t
	}
	*g = read
	return nil
}

// Check says what is wrong with a grant: a key line, a forwarding or an account
// that cannot be read, a permission that does not exist. Tokens are neither minted nor accepted with a
// grant that fails it.
func (g *Grant) Check() error {
	if _, err := g.PublicKeys(); err != nil {
		return err
	}
	for _, name := range g.Permissions {
		if !slices.Contains(permissionNames, name) {
			return fmt.Errorf("grant: permission %.64q does not exist: there are %s", name, strings.Join(permissionNames, ", "))
		}
	}
	if _, err := forwardLists(g.PermitOpen, g.PermitListen); err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	if err := g.Limits.Check(); err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	if len(g.Accounts) > maxAccounts {
		return fmt.Errorf("grant: there are %d accounts, at most %d are allowed", len(g.Accounts), maxAccounts)
	}
	for _, account := range g.Accounts {
		if err := CheckAccount(account); err != nil {
			return fmt.Errorf("grant: %w", err)
		}
	}
	return nil
}

// PublicKeys returns the keys that are granted entry, whatever their options
// say, and those of the authorities whose certificates are.
func (g *Grant) PublicKeys() ([]ssh.PublicKey, error) {
	lines, err := g.lines()
	var keys []ssh.PublicKey
	for _, line := range lines {
		keys = append(keys, line.key)
	}
	return keys, err
}

// Authorities returns those of PublicKeys whose certificates are granted entry;
// only they are, not the authorities by themselves. plain are the others.
func (g *Grant) Authorities() (authorities, plain []ssh.PublicKey, err error) {
	lines, err := g.lines()
	for _, line := range lines {
		if line.options.authority {
			authorities = append(authorities, line.key)
		} else {
			plain = append(plain, line.key)
		}
	}
	return authorities, plain, err
}

func (g *Grant) lines() ([]*authorizedKey, error) {
	var lines []*authorizedKey
	for i, line := range g.AuthorizedKeys {
		if strings.ContainsAny(line, "\r\n") {
			return nil, fmt.Errorf("grant key %d: more than one line: give each its own entry", i+1)
		}
		parsed, err := g.parseKey(i)
		if err != nil {
			return nil, err
		}
		if len(parsed.entries) == 0 {
			return nil, fmt.Errorf("grant key %d: no key in it", i+1)
		}
		lines = append(lines, parsed.entries...)
	}
	return lines, nil
}

func (g *Grant) parseKey(i int) (*AuthorizedKeys, error) {
	return ParseAuthorizedKeys(fmt.Sprintf("grant key %d", i+1), []byte(g.AuthorizedKeys[i]))
}

// Permitted returns a new value with what the grant permits at most; of a nil
// grant nothing.
func (g *Grant) Permitted() *ssh.Permissions {
	if g == nil {
		return noPermissions()
	}
	p := DefaultPermissions()
	if g.Permissions != nil {
		p = noPermissions()
	}
	for _, name := range g.Permissions {
		if slices.Contains(permissionNames, name) {
			p.Extensions[name] = ""
		}
	}
	lists, err := forwardLists(g.PermitOpen, g.PermitListen)
	if err != nil { // a grant that fails Check
		return noPermissions()
	}
	maps.Copy(p.CriticalOptions, lists)
	return p
}

// GrantKeys is the [Authorizer] that admits the keys listed in the task's
// grant.
type GrantKeys struct {
	Now func() time.Time // nil: time.Now
}

// Authorize admits an identity whose key is in task.Grant, or whose certificate
// is by an authority that is, with what both the grant and the options of the
// key permit.
func (a GrantKeys) Authorize(_ context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	g, now := task.Grant, clock(a.Now)
	switch {
	case g == nil:
		return nil, denied("no grant for the task")
	case id.Key == nil:
		return nil, denied("no key that is granted entry")
	case !g.Until.IsZero() && !now.Before(g.Until):
		return nil, denied("grant ended at %s", g.Until.UTC().Format(time.RFC3339))
	}
	who, err := newClaimant(id)
	if err != nil {
		return nil, err
	}
	return g.authorize(who, task.ID, now)
}

// authorize asks the lines that hold the key. Only those are parsed: with all
// of them, the time that an answer takes would tell a stranger whether the task
// exists.
func (g *Grant) authorize(who *claimant, task TaskID, now time.Time) (*ssh.Permissions, error) {
	encoded := base64.StdEncoding.EncodeToString([]byte(who.listed))
	errs := []error{denied("key is not in the grant")}
	if who.cert != nil {
		errs[0] = denied("certificate is by an authority that is not in the grant, %s", ssh.FingerprintSHA256(who.cert.SignatureKey))
	}
	for i, line := range g.AuthorizedKeys {
		if !strings.Contains(line, encoded) {
			continue
		}
		keys, err := g.parseKey(i)
		if err == nil {
			var p *ssh.Permissions
			limit := func(*authorizedKey) *ssh.Permissions { return g.Permitted() }
			if p, err = keys.authorize(who, task, now, limit); err == nil {
				return p, nil
			}
		}
		errs = append(errs, err)
	}
	if len(errs) == 2 && errors.Is(errs[1], ErrDenied) {
		return nil, errs[1]
	}
	return nil, &refusals{errs}
}
