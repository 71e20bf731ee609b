package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
)

// AdminExplainPath is asked by POST with an [ExplainRequest], and answers with an
// [Explanation].
const AdminExplainPath = "/v1/explain"

// An ExplainRequest asks whether somebody would be let into a task.
type ExplainRequest struct {
	Task string `json:"task"`
	// Key is a public key or certificate as in a .pub file, or the fingerprint of
	// a key that a registered task's grant names.
	Key string `json:"key"`
	// From is the address that the guest would come from. Without one, whoever may
	// come from some addresses only is refused.
	From string `json:"from,omitempty"`
}

// An Explanation says who would let somebody in, and who not.
type Explanation struct {
	Steps       []ExplainStep     `json:"steps"`
	Admitted    bool              `json:"admitted"`           // ssh TASK@… would reach the host, or ssh -J where it is end to end only
	Identity    string            `json:"identity,omitempty"` // as who
	Permissions []string          `json:"permissions"`
	Options     map[string]string `json:"options"` // critical options, which narrow the permissions
}

// An ExplainStep is one thing that was looked at.
type ExplainStep struct {
	Verdict string `json:"verdict"` // yes: it lets the guest in, or on; no: it does not; note: neither
	Text    string `json:"text"`
}

// Verdicts of a step.
const (
	verdictYes  = "yes"
	verdictNo   = "no"
	verdictNote = "note"
)

func (e *Explanation) say(verdict, format string, args ...any) {
	e.Steps = append(e.Steps, ExplainStep{verdict, fmt.Sprintf(format, args...)})
}

// check says whether something holds, in the words for either case.
func (e *Explanation) check(ok bool, yes, no string) {
	if ok {
		e.say(verdictYes, "%s", yes)
	} else {
		e.say(verdictNo, "%s", no)
	}
}

// explainTimeout bounds how long those may take who are asked elsewhere.
const explainTimeout = 30 * time.Second

// adminExplain asks everybody who would be asked at a sign-in, one by one.
func (s *Server) adminExplain(ctx context.Context, r ExplainRequest) (*Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	settings := s.settings.Load()
	task, ok := settings.taskNamed(r.Task)
	if !ok {
		return nil, fmt.Errorf("%.100q cannot be the name of a task", r.Task)
	}
	key, err := s.explainKey(r.Key)
	if err != nil {
		return nil, err
	}
	id := auth.Identity{Method: "publickey", Key: key}
	if r.From != "" {
		addr, err := netip.ParseAddr(r.From)
		if err != nil {
			return nil, fmt.Errorf("%.100q is not an IP address", r.From)
		}
		id.Remote = netip.AddrPortFrom(addr.Unmap(), 1)
	}
	if people := s.rememberedAs(settings, key); len(people) == 1 {
		id.Person = people[0]
	}
	e := &Explanation{Permissions: []string{}, Options: map[string]string{}}
	e.aboutKey(s, key)
	e.aboutRevoked(settings.Revoked, key)
	e.aboutAddress(s, id.Remote.Addr())
	registered := e.aboutTask(s, task)
	grant, _ := s.grantOf(task)
	e.aboutSources(ctx, s, settings.Guests, id, auth.Task{ID: task, Grant: grant})
	e.verdict(ctx, settings, id, auth.Task{ID: task, Grant: grant}, registered)
	return e, nil
}

// explainKey finds the key that a question is about.
func (s *Server) explainKey(text string) (ssh.PublicKey, error) {
	if !strings.HasPrefix(text, "SHA256:") {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			return nil, errors.New("there is no public key in what was given: give a .pub file, or a fingerprint")
		}
		return key, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.keys {
		if key, err := ssh.ParsePublicKey([]byte(id)); err == nil && ssh.FingerprintSHA256(key) == text {
			return key, nil
		}
	}
	if key := s.theirKeys.find(text); key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("no registered task's grant names the key %.100s: give its .pub file, so that others can be asked about it", text)
}

func (e *Explanation) aboutKey(s *Server, key ssh.PublicKey) {
	what := key.Type() + " " + ssh.FingerprintSHA256(plainKey(key))
	if cert, ok := key.(*ssh.Certificate); ok {
		what += fmt.Sprintf(", a certificate %q for %s by %s", clip(cert.KeyId), strings.Join(cert.ValidPrincipals, ", "), ssh.FingerprintSHA256(cert.SignatureKey))
	}
	if err := auth.CheckKey(key); err != nil {
		e.say(verdictNo, "the key (%s) is refused as such: %v", what, err)
	} else {
		e.say(verdictYes, "the key (%s) is of a kind that is taken", what)
	}
	if block := s.blocks.ofKey(key); block != nil {
		e.say(verdictNo, "the key is blocked by an operator%s", block.details())
	}
	for _, who := range s.rememberedAs(s.settings.Load(), key) {
		e.say(verdictNote, "%s signed in by a browser lately, and said that the key is theirs", who.Name())
	}
	if names := s.tasksNaming(key); len(names) > 0 {
		e.say(verdictNote, "the key, or its authority, is in the grants of these tasks: %s", strings.Join(names, ", "))
	}
}

// details are what an operator wants to know of a block.
func (b *Block) details() string {
	text := " since " + b.At.Format(time.RFC3339)
	if b.Until != nil {
		text += " until " + b.Until.Format(time.RFC3339)
	}
	if b.By != "" {
		text += " (" + b.By + ")"
	}
	return text + because(b.Reason)
}

// maxNaming bounds how many tasks are listed.
const maxNaming = 10

// tasksNaming are the tasks whose grants name a key.
func (s *Server) tasksNaming(key ssh.PublicKey) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for task := range s.keys[keyID(key)] {
		names = append(names, string(task))
	}
	slices.Sort(names)
	if more := len(names) - maxNaming; more > 0 {
		names = append(names[:maxNaming], fmt.Sprintf("and %d more", more))
	}
	return names
}

func (e *Explanation) aboutAddress(s *Server, addr netip.Addr) {
	if !addr.IsValid() {
		e.say(verdictNote, "no address was given to come from: restrictions of addresses refuse")
		return
	}
	e.check(!s.throttle.penalties.shutsOut(sourceOf(addr), time.Now()), "connections from "+addr.String()+" are taken",
		"connections from "+addr.String()+" are closed for a while: too many of them did not sign in")
}

// aboutTask reports whether the task can be entered now.
func (e *Explanation) aboutTask(s *Server, task auth.TaskID) (registered bool) {
	if block := s.blocks.ofTask(task); block != nil {
		e.say(verdictNo, "task %s is blocked by an operator%s", task, block.details())
	}
	t, reg, arrived := s.tunnelOf(string(task))
	switch {
	case t != nil:
		e.say(verdictYes, "task %s is registered: its agent at %s is connected for %v", task, reg.remote, time.Since(reg.since).Round(time.Second))
	case arrived != nil:
		e.say(verdictNo, "task %s is registered, but its agent has lost the connection: guests wait for it for a moment", task)
	default:
		e.say(verdictNo, "task %s is not registered: its agent has not started, has ended or was refused (see the log). It has no grant, then", task)
	}
	if reg.endToEndOnly {
		e.say(verdictNote, "its host takes end-to-end guests only: ssh -J %[1]s@%[2]s %[1]s", task, s.settings.Load().jumpHost())
	}
	e.aboutLimits(s, auth.Task{ID: task, Grant: reg.grant})
	return t != nil
}

// aboutSources asks each of those who may let a guest in.
func (e *Explanation) aboutSources(ctx context.Context, s *Server, guests auth.Authorizer, id auth.Identity, task auth.Task) {
	for _, source := range sources(guests) {
		p, err := source.Authorize(ctx, id, task)
		switch {
		case err == nil && p != nil:
			e.say(verdictYes, "%s: lets the key in as %q", sourceName(source), auth.IdentityName(p))
			if block := s.blocks.ofName(auth.IdentityName(p)); block != nil {
				e.say(verdictNo, "the name %q is blocked by an operator%s", auth.IdentityName(p), block.details())
			}
		case errors.Is(err, auth.ErrDenied):
			e.say(verdictNo, "%s: %s", sourceName(source), strings.TrimPrefix(err.Error(), auth.ErrDenied.Error()+": "))
		default:
			e.say(verdictNo, "%s: cannot say, and so does not: %v", sourceName(source), err)
		}
	}
}

// sources takes apart what was put together.
func sources(a auth.Authorizer) []auth.Authorizer {
	switch a := a.(type) {
	case nil:
		return nil
	case guard:
		return sources(a.Authorizer)
	case interface{ Unwrap() auth.Authorizer }:
		return sources(a.Unwrap())
	case auth.AnyOf:
		var all []auth.Authorizer
		for _, member := range a {
			all = append(all, sources(member)...)
		}
		return all
	}
	return []auth.Authorizer{a}
}

// sourceName is what an operator calls one who lets guests in.
func sourceName(a auth.Authorizer) string {
	switch a := a.(type) {
	case interface{ Source() string }:
		return a.Source()
	case auth.GrantKeys:
		return "keys in the task's grant"
	case *forge.Authorizer:
		if a.Operator {
			return "accounts that the operator names"
		}
		return "accounts in the task's grant"
	}
	return fmt.Sprintf("%T", a)
}

// verdict asks as a sign-in does.
func (e *Explanation) verdict(ctx context.Context, settings *Settings, id auth.Identity, task auth.Task, registered bool) {
	p, err := settings.Guests.Authorize(ctx, id, task)
	if err == nil && p == nil {
		err = auth.ErrDenied
	}
	if err == nil {
		err = auth.CheckKey(id.Key)
	}
	if err != nil {
		return
	}
	e.Admitted = registered
	e.Identity = auth.IdentityName(p)
	for name := range p.Extensions {
		if _, permits := auth.FullPermissions().Extensions[name]; permits {
			e.Permissions = append(e.Permissions, name)
		}
	}
	slices.Sort(e.Permissions)
	maps.Copy(e.Options, p.CriticalOptions)
}
