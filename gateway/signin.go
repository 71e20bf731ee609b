package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// signIn decides about one guest's connection. All that it knows of the guest
// it puts into the Permissions of the key that was offered: only those of the
// key whose possession was proved come out of the handshake (CVE-2024-45337).
type signIn struct {
	s        *Server
	ctx      context.Context
	settings *Settings
	conn     *conn
	user     string   // the name tried last
	offered  []string // fingerprints of keys that open nothing

	explained bool
}

// signedIn is what the handshake says of a guest, kept in
// [ssh.Permissions.ExtraData] under its own type as the key.
type signedIn struct {
	task     auth.TaskID
	identity auth.Identity
	grant    *auth.Grant // that was judged by
}

type signedInKey struct{}

func (a *signIn) config() *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config:                      auth.Algorithms(),
		PublicKeyAuthAlgorithms:     auth.PublicKeyAlgorithms(),
		MaxAuthTries:                a.settings.Limits.AuthTries,
		ServerVersion:               a.s.version,
		PublicKeyCallback:           a.publicKey,
		VerifiedPublicKeyCallback:   a.verifiedPublicKey,
		KeyboardInteractiveCallback: a.explain,
	}
	for _, k := range a.settings.HostKeys {
		c.AddHostKey(k)
	}
	return c
}

// publicKey answers whether a key would be let in. A task that does not exist is
// judged like one that does: the same authorizer, the same refusal.
func (a *signIn) publicKey(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	a.user = meta.User()
	perms, err := a.authorize(a.user, key)
	if err != nil {
		a.offered = append(a.offered, ssh.FingerprintSHA256(key))
		return nil, err
	}
	return perms, nil
}

func (a *signIn) authorize(user string, key ssh.PublicKey) (*ssh.Permissions, error) {
	if err := auth.CheckKey(key); err != nil {
		return nil, err
	}
	id := auth.Identity{Method: "publickey", Key: key, Remote: a.conn.remote}
	task, err := auth.ParseTaskID(user)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", auth.ErrDenied, err)
	}
	grant := a.s.grantOf(string(task))
	granted, err := a.settings.Guests.Authorize(a.ctx, id, auth.Task{ID: task, Grant: grant})
	if err != nil {
		return nil, err
	}
	if granted == nil {
		return nil, auth.ErrDenied
	}
	perms := *granted // the authorizer may hand out the same object twice
	id.Name = auth.IdentityName(granted)
	perms.ExtraData = map[any]any{signedInKey{}: signedIn{task: task, identity: id, grant: grant}}
	return &perms, nil
}

// verifiedPublicKey makes sure that the key which was proved is the key that
// was judged, for the user name that is now in force.
func (a *signIn) verifiedPublicKey(meta ssh.ConnMetadata, key ssh.PublicKey, perms *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	in, ok := perms.ExtraData[signedInKey{}].(signedIn)
	if !ok || string(in.identity.Key.Marshal()) != string(key.Marshal()) {
		return nil, errors.New("the proved key is not the one that was judged")
	}
	if task, err := auth.ParseTaskID(meta.User()); err != nil || task != in.task {
		return nil, errors.New("the user name changed while signing in")
	}
	return perms, nil
}

// explain tells a guest why none of its keys was good. It is a
// keyboard-interactive sign-in that asks nothing and always fails: clients show
// its text just before they give up, whereas a banner for each refused key
// would be seen also by those whose next key is good.
func (a *signIn) explain(_ ssh.ConnMetadata, client ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	err := fmt.Errorf("%w: no key that was offered opens this task", auth.ErrDenied)
	if a.explained { // OpenSSH asks three times
		return nil, err
	}
	a.explained = true
	_, clientErr := client("", refusalText(a.offered), nil, nil)
	return nil, errors.Join(err, clientErr)
}

// refusalText is the same for every name, whether or not it is a task.
func refusalText(offered []string) string {
	if len(offered) == 0 {
		return "Stagedoor: your ssh client offered no key, and there is no other way in.\n" +
			"Make one with ssh-keygen, or name one with ssh -i FILE; then ask for its public half to be let in."
	}
	return "Stagedoor: no key that your ssh client offered opens a task of this name:\n  " +
		strings.Join(offered, "\n  ") +
		"\nCheck the name, and that the job has started; or ask whoever runs the job to let one of these keys in."
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
	a.s.metrics.signIns.WithLabelValues(result).Inc()
	a.s.log.Info("guest did not sign in", "task", fmt.Sprintf("%.64s", a.user), "conn", a.conn.id,
		"remote", a.conn.remote.String(), "result", result, "offered", a.offered, "error", err)
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
