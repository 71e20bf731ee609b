package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// methodBrowser is the method of a guest who came in by a browser.
const methodBrowser = "browser"

// farewellTime is how long a guest may take to be told that it is not let in, and
// to try what other methods there are.
const farewellTime = 10 * time.Second

// byBrowser is whether a guest can be offered a link.
func (a *signIn) byBrowser() bool {
	return a.settings.SignIn != nil && len(a.settings.SignIn.Providers) > 0
}

// askBrowser shows a guest a link and waits until somebody has signed in there.
// Nothing about the task is looked at before, so that the link is offered in the
// same way under every name.
func (a *signIn) askBrowser(client ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	t := &attempt{user: a.user, remote: a.conn.remote.Addr().String(), keys: a.plainKeys, signIn: a.settings.SignIn, url: "https://" + a.settings.publicHost(),
		until: time.Now().Add(a.settings.Limits.BrowserTimeout)}
	if err := a.wait(t); err != nil {
		return nil, errors.Join(err, a.say(client, "Stagedoor: "+err.Error()+"."))
	}
	defer a.s.browsers.end(t)
	if _, err := client("", a.linkText(t), nil, nil); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(a.s.ctx, t.until)
	defer cancel()
	defer context.AfterFunc(a.conn.gone, cancel)()
	said, err := t.await(ctx)
	if err != nil {
		a.conn.SetDeadline(time.Now().Add(farewellTime))
		return nil, errors.Join(fmt.Errorf("by a browser: %w", err), a.say(client, "Stagedoor: "+err.Error()+": run the command again."))
	}
	a.renew()
	who := said.who
	perms, err := a.judgePerson(who)
	if err == nil {
		a.remember(t, said)
	}
	t.verdict <- verdict{err == nil, who.Name()}
	if err != nil {
		words := fmt.Sprintf("Stagedoor: you signed in as %s, to whom no task named %.64q is open.\n"+
			"Check the name, and that the job has started; or ask whoever runs the job to let this account in.", who.Name(), a.user)
		return nil, errors.Join(err, a.say(client, words))
	}
	return perms, nil
}

// say shows words to a guest who is about to be refused.
func (a *signIn) say(client ssh.KeyboardInteractiveChallenge, words string) error {
	if a.s.ctx.Err() != nil {
		a.conn.Close()
		return ErrClosed
	}
	_, err := client("", words, nil, nil)
	return err
}

// wait moves a guest from those who are signing in to those who wait for a
// browser, of whom there may be more and for longer.
func (a *signIn) wait(t *attempt) error {
	l := a.settings.Limits
	leave, reason := a.s.browsers.places.enter(sourceOf(a.conn.remote.Addr()),
		Limits{Unauthenticated: l.BrowserWaiting, UnauthenticatedPerSource: l.BrowserWaitingPerSource}, func() {
			a.s.metrics.refused.WithLabelValues("crowded out").Inc()
			a.conn.Close()
		})
	if reason != "" {
		return errors.New("too many people are signing in by a browser just now: try again in a moment")
	}
	if err := a.s.browsers.open(t); err != nil {
		leave()
		return err
	}
	stop := context.AfterFunc(a.s.ctx, func() { a.conn.Close() })
	a.leaveWaiting = func() {
		stop()
		leave()
	}
	a.conn.giveBack()
	a.conn.SetDeadline(t.until.Add(farewellTime))
	return nil
}

// renew gives a sign-in that has waited for a person the time that others have.
func (a *signIn) renew() {
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithTimeout(a.s.ctx, a.settings.Limits.HandshakeTimeout)
	leave := a.leaveWaiting
	a.leaveWaiting = func() {
		cancel()
		leave()
	}
	a.conn.SetDeadline(time.Now().Add(a.settings.Limits.HandshakeTimeout))
}

// linkText is the same for every name.
func (a *signIn) linkText(t *attempt) string {
	words := "Stagedoor: sign in with your browser to enter. Open\n\n  " + t.url + signInPath + t.code +
		"\n\nand check that it shows the code " + t.short + ". This goes on by itself once you are signed in."
	if len(a.told) > 0 {
		words += "\n(No key that your ssh client offered is known here: " + strings.Join(a.told, ", ") + ")"
	}
	if a.settings.OneTimePasswords {
		words += "\nWith the one-time password of the job's log instead: ssh -o PreferredAuthentications=password"
	}
	return words + "\n"
}

// judgePerson decides about a guest who is known by a browser: for the task in the
// user name and nothing else.
func (a *signIn) judgePerson(who *auth.Person) (*ssh.Permissions, error) {
	in := signedIn{user: a.user, identity: auth.Identity{Method: methodBrowser, Person: who, Remote: a.conn.remote}}
	task, ok := a.settings.taskNamed(a.user)
	grant, registered := a.s.grantOf(task)
	perms, err := a.authorize(in.identity, auth.Task{ID: task, Grant: grant})
	if err == nil && !ok { // a rule for every task is for none without a name
		err = auth.ErrDenied
	}
	if err != nil {
		return nil, err
	}
	in.task, in.present, in.grant = task, registered, grant
	in.identity.Name = auth.IdentityName(perms)
	perms.ExtraData = map[any]any{signedInKey{}: in}
	return perms, nil
}
