package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/gateway/audit"
)

// signIn decides about one guest's connection. What a key opens is judged once
// its possession was proved, and goes into the Permissions that come out of the
// handshake: whatever was only offered leaves no trace (CVE-2024-45337).
//
// A key that is merely offered is told to be good when anybody names it, be it for
// another task than the user name says: so whoever holds only the public half
// learns nothing about tasks.
type signIn struct {
	s        *Server
	ctx      context.Context
	settings *Settings
	conn     *conn
	user     string   // the name tried last
	offered  []string // keys that open nothing
	told     []string // what their owner is told of each
	reasons  []string // what the log is

	explained bool

	plainKeys    []ssh.PublicKey // of those that open nothing
	leaveWaiting func()          // nil: it has not waited for a browser

	wrongPasswords int
	gaveUp         bool // it has no password
}

// signedIn is what the handshake says of a guest, kept in
// [ssh.Permissions.ExtraData] under its own type as the key.
type signedIn struct {
	user     string      // the name as it was given
	task     auth.TaskID // empty: there is none of this name, and the guest may only jump
	present  bool        // the task was registered
	identity auth.Identity
	grant    *auth.Grant // that was judged by
}

type signedInKey struct{}

func (a *signIn) config() *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config:                      auth.Algorithms(a.settings.ExtraAlgorithms...),
		PublicKeyAuthAlgorithms:     auth.PublicKeyAlgorithms(),
		MaxAuthTries:                a.settings.Limits.AuthTries,
		ServerVersion:               a.s.version,
		PublicKeyCallback:           a.publicKey,
		VerifiedPublicKeyCallback:   a.verifiedPublicKey,
		KeyboardInteractiveCallback: a.explain,
		AuthLogCallback:             a.attempted,
	}
	if a.settings.OneTimePasswords {
		c.PasswordCallback = a.password
	}
	for _, k := range a.settings.HostKeys {
		c.AddHostKey(k)
	}
	return c
}

// attempted spares the address of who has signed in, before they are told so: one
// that goes at once has its connection closed before the handshake returns.
func (a *signIn) attempted(_ ssh.ConnMetadata, _ string, err error) {
	if err == nil {
		a.conn.blame(noOffence)
	}
}

// publicKey answers whether anybody names a key that is offered.
func (a *signIn) publicKey(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	a.user = meta.User()
	if err := a.offer(key); err != nil && !a.remembers(key) {
		a.refuse(key, err)
		return nil, err
	}
	return a.waivers(key), nil
}

// noTouchRequired among the permissions of an offered key has x/crypto take a
// security key's signature without a touch.
const noTouchRequired = "no-touch-required"

// waivers are the permissions of a key that is offered: none but the leave not to
// touch it, if that is how the task in the user name lists it. Under any other
// name the key has to be touched.
func (a *signIn) waivers(key ssh.PublicKey) *ssh.Permissions {
	p := &ssh.Permissions{}
	if !strings.HasPrefix(key.Type(), "sk-") {
		return p
	}
	task, _ := a.settings.taskNamed(a.user)
	id := auth.Identity{Method: "publickey", Key: key, Remote: a.conn.remote}
	granted, err := a.authorize(id, auth.Task{ID: task, Grant: a.s.grantNaming(task, key)})
	if err == nil && waivesTouch(granted) {
		p.Extensions = map[string]string{noTouchRequired: ""}
	}
	return p
}

func waivesTouch(p *ssh.Permissions) bool {
	_, ok := p.Extensions[noTouchRequired]
	return ok
}

// refuse notes a key and why it opens nothing. Its owner is told what is written in
// a certificate, and no more; see [auth.DescribeUserCertificate].
func (a *signIn) refuse(key ssh.PublicKey, err error) {
	name := auth.DescribeKey(key)
	reason := name
	cert, certified := key.(*ssh.Certificate)
	if certified {
		reason += " by " + ssh.FingerprintSHA256(cert.SignatureKey)
	}
	reason = fmt.Sprintf("%.600s", reason+": "+err.Error())
	if i := slices.Index(a.offered, name); i >= 0 {
		a.reasons[i] = reason
		return
	}
	told := name
	if !certified && auth.CheckKey(key) == nil {
		a.plainKeys = append(a.plainKeys, key)
	}
	if certified {
		told += ": " + auth.DescribeUserCertificate(cert, a.conn.remote.Addr(), time.Now())
	}
	a.offered, a.told, a.reasons = append(a.offered, name), append(a.told, told), append(a.reasons, reason)
}

func (a *signIn) offer(key ssh.PublicKey) error {
	if err := auth.CheckKey(key); err != nil {
		return err
	}
	named := a.s.named(key)
	id := auth.Identity{Method: "publickey", Key: key, Remote: a.conn.remote}
	err := a.byOperator(id) // also when named, so that it takes the same time
	if block := a.s.blocks.ofKey(key); block != nil {
		return block.err()
	}
	if err := a.settings.Revoked.Check(key); err != nil {
		return err
	}
	if named || err == nil {
		return nil
	}
	return fmt.Errorf("no task that is connected names it: %w", err)
}

// maxPrincipals bounds for how many of the tasks that a certificate names the
// operator's sources are asked.
const maxPrincipals = 16

// byOperator asks those who let guests into tasks that have no grant, or none yet.
func (a *signIn) byOperator(id auth.Identity) error {
	task, _ := a.settings.taskNamed(a.user)
	tasks := []auth.TaskID{task}
	if cert, ok := id.Key.(*ssh.Certificate); ok {
		for _, name := range cert.ValidPrincipals[:min(len(cert.ValidPrincipals), maxPrincipals)] {
			if task, err := auth.ParseTaskID(name); err == nil {
				tasks = append(tasks, task)
			}
		}
	}
	err := error(auth.ErrDenied)
	for _, task := range tasks {
		if _, err = a.authorize(id, auth.Task{ID: task}); err == nil {
			return nil
		}
	}
	for _, source := range sources(a.settings.Guests) {
		if known, ok := source.(interface{ Knows(auth.Identity) error }); ok && known.Knows(id) == nil {
			return nil
		}
	}
	return err
}

// authorize asks the authorizer and returns permissions of our own: it may hand
// out the same object twice.
func (a *signIn) authorize(id auth.Identity, task auth.Task) (*ssh.Permissions, error) {
	granted, err := a.settings.Guests.Authorize(a.ctx, id, task)
	if err != nil {
		return nil, err
	}
	if granted == nil {
		return nil, auth.ErrDenied
	}
	perms := *granted
	return &perms, nil
}

// verifiedPublicKey judges a key whose possession was proved, for the user name
// that is now in force. A refusal gives the client's next key its turn.
func (a *signIn) verifiedPublicKey(meta ssh.ConnMetadata, key ssh.PublicKey, offered *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	a.user = meta.User()
	in := signedIn{user: a.user, identity: auth.Identity{Method: "publickey", Key: key, Remote: a.conn.remote}}
	perms, err := a.judge(&in)
	if err == nil && waivesTouch(offered) && !waivesTouch(perms) {
		err = fmt.Errorf("%w: the key was to be touched", auth.ErrDenied) // another host came meanwhile
	}
	if err != nil {
		a.refuse(key, err)
		return nil, err
	}
	perms.ExtraData = map[any]any{signedInKey{}: in}
	return perms, nil
}

// judge decides about a guest and completes what is known of it. The name of a
// registered task is judged for it, and so is any other for which the operator's
// sources speak, as its host may be about to come; under all other names guests
// may jump and no more.
func (a *signIn) judge(in *signedIn) (*ssh.Permissions, error) {
	if task, ok := a.settings.taskNamed(in.user); ok {
		grant, registered := a.s.grantOf(task)
		perms, err := a.authorize(in.identity, auth.Task{ID: task, Grant: grant})
		if err != nil {
			perms, err = a.asRemembered(in, auth.Task{ID: task, Grant: grant}, err)
		}
		switch {
		case err == nil:
			in.task, in.present, in.grant = task, registered, grant
			in.identity.Name = auth.IdentityName(perms)
			return perms, nil
		case registered:
			return nil, err
		}
	}
	if err := a.offer(in.identity.Key); err != nil {
		return nil, err
	}
	in.identity.Name = ssh.FingerprintSHA256(plainKey(in.identity.Key))
	return &ssh.Permissions{}, nil
}

// plainKey is the key that a certificate is about, or the key itself.
func plainKey(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}

// explain tells a guest why none of its keys was good. It is a
// keyboard-interactive sign-in that asks nothing and always fails: clients show
// its text just before they give up, whereas a banner for each refused key
// would be seen also by those whose next key is good.
func (a *signIn) explain(meta ssh.ConnMetadata, client ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	a.user = meta.User()
	err := fmt.Errorf("%w: no key that was offered opens this task", auth.ErrDenied)
	words, first := "", !a.explained
	if first { // OpenSSH asks three times
		words = a.refusalText()
	}
	a.explained = true
	switch {
	case first && a.byBrowser():
		return a.askBrowser(client)
	case a.settings.OneTimePasswords && !a.gaveUp:
		return a.askPassword(words, client)
	case !first:
		return nil, err
	}
	_, clientErr := client("", words, nil, nil)
	return nil, errors.Join(err, clientErr)
}

// refusalText is the same for every name, whether or not it is a task. The name
// is told, as ssh -J takes that of the local user.
func (a *signIn) refusalText() string {
	if len(a.told) == 0 {
		others := ", and there is no other way in.\n"
		if a.settings.OneTimePasswords {
			others = ".\n"
		}
		return "Stagedoor: your ssh client offered no key" + others +
			"Make one with ssh-keygen, or name one with ssh -i FILE; then ask for its public half to be let in."
	}
	return fmt.Sprintf("Stagedoor: no key that your ssh client offered opens a task named %.64q:\n  ", a.user) +
		strings.Join(a.told, "\n  ") +
		"\nCheck the name, and that the job has started; or ask whoever runs the job to let one of these keys in." +
		"\nWith ssh -J the name does not matter, the keys do."
}

// refused logs a handshake that did not end in a sign-in.
func (a *signIn) refused(err error) {
	var failed *ssh.ServerAuthError
	result := "failed"
	switch {
	case errors.As(err, &failed):
		result = "denied"
		err = lastError(failed.Errors) // one for each key says little more
	case isTimeout(err):
		result = "timeout"
	}
	a.conn.blame(guestOffence(result, len(a.offered)+a.wrongPasswords))
	a.s.metrics.signIns.WithLabelValues(result).Inc()
	args := []any{"task", fmt.Sprintf("%.64s", a.user), "conn", a.conn.id, "remote", a.conn.remote.String(), "result", result}
	if len(a.offered) > 0 {
		args = append(args, "offered", a.offered, "reasons", a.reasons)
	}
	a.s.log.Info("guest did not sign in", append(args, "error", err)...)
	reason := clip(err.Error())
	if len(a.reasons) > 0 {
		reason = fmt.Sprintf("%.2000s", strings.Join(a.reasons, "; "))
	}
	a.s.audit.Record(audit.GuestRefused{Who: audit.Who{Remote: a.conn.remote.String(), Conn: a.conn.id},
		User: clip(a.user), Result: result, Offered: a.offered, Reason: reason})
}

// lastError leaves out that a guest first asks which methods there are.
func lastError(errs []error) error {
	for i := len(errs) - 1; i >= 0; i-- {
		if errs[i] != nil && !errors.Is(errs[i], ssh.ErrNoAuth) {
			return errs[i]
		}
	}
	return ssh.ErrNoAuth
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
