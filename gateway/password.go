package gateway

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// passwordUsedFor is how long a used password is remembered for a task without an
// end: no agent can come back with it later.
const passwordUsedFor = endedFor

// errWrongPassword is the one answer to a password that lets nobody in.
var errWrongPassword = fmt.Errorf("%w: it is not the one-time password of such a task, or was used", auth.ErrDenied)

// password takes a task's one-time password by the method of that name.
func (a *signIn) password(meta ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
	a.user = meta.User()
	return a.oneTime(string(password))
}

// askPassword takes it by keyboard-interactive, with words before the question.
func (a *signIn) askPassword(words string, client ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	answers, err := client("", words, []string{"One-time password: "}, []bool{false})
	if err != nil {
		return nil, err
	}
	if answers[0] == "" {
		a.gaveUp = true
		return nil, errWrongPassword
	}
	return a.oneTime(answers[0])
}

// oneTime lets in who gives the password of the task in the user name, once. All
// other cases look the same to a stranger.
func (a *signIn) oneTime(password string) (*ssh.Permissions, error) {
	in := signedIn{user: a.user, identity: auth.Identity{Method: auth.OneTimePassword, Remote: a.conn.remote}}
	perms, err := a.usePassword(&in, password)
	if err != nil {
		a.wrongPasswords++
		return nil, err
	}
	perms.ExtraData = map[any]any{signedInKey{}: in}
	return perms, nil
}

func (a *signIn) usePassword(in *signedIn, password string) (*ssh.Permissions, error) {
	hash := auth.HashOneTimePassword(password)
	task, _ := a.settings.taskNamed(a.user)
	t, reg, _ := a.s.tunnelOf(string(task))
	var want [len(hash)]byte // no password has this hash
	copy(want[:], reg.passwordHash)
	if subtle.ConstantTimeCompare(hash[:], want[:]) != 1 {
		return nil, errWrongPassword
	}
	perms, err := a.authorize(in.identity, auth.Task{ID: task, Grant: reg.grant})
	if err != nil {
		return nil, err
	}
	if err := a.s.usePassword(reg); err != nil {
		return nil, err
	}
	if t != nil {
		go a.s.track(func() { a.s.tell(t, tunnel.Message{Type: tunnel.TypePasswordUsed}) })
	}
	in.task, in.present, in.grant = task, true, reg.grant
	in.identity.Name = auth.IdentityName(perms)
	return perms, nil
}

// usePassword notes that a task's password was used, unless it was, or another by
// the same token: an agent could make up passwords for as long as there is room for
// tokens that were used. That is where they are kept, and their owner there is
// nobody, by another name each time.
func (s *Server) usePassword(reg registration) error {
	until := reg.deadline
	if until.IsZero() {
		until = time.Now().Add(passwordUsedFor)
	}
	origin := "one-time password of " + string(reg.task)
	byToken := newTokenID(origin+" by token", fmt.Sprintf("%d %x", reg.generation.UnixNano(), reg.agentKey))
	for _, id := range []tokenID{byToken, newTokenID(origin, hex.EncodeToString(reg.passwordHash))} {
		nobody := make(ed25519.PublicKey, ed25519.PublicKeySize)
		rand.Read(nobody)
		first, err := s.used.take(id, nobody, until)
		switch {
		case err != nil:
			s.log.Error("cannot note that a one-time password was used", "task", string(reg.task), "error", err)
			return fmt.Errorf("note that the password was used: %w", err)
		case first != nil:
			return errWrongPassword
		}
	}
	return nil
}
