package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/forge"
	"github.com/stagedoor/stagedoor/auth/issuer"
	"github.com/stagedoor/stagedoor/tunnel"
)

// firstToken returns what the token says. Of an ID token that is the grant alone.
func (a *Agent) firstToken(ctx context.Context) (*auth.Token, error) {
	if a.Token == "" && a.NewToken == nil {
		return nil, errors.New("agent: no token: access to a host is opt-in")
	}
	if a.Token == "" {
		if err := a.renewToken(ctx); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	actor, err := issuer.OwnActor(a.Token)
	if err != nil {
		token, err := auth.DecodeToken(a.Token)
		if err != nil {
			return nil, fmt.Errorf("agent: host token: %w", err)
		}
		return token, nil
	}
	token := &auth.Token{}
	if account := forge.Account(actor).String(); actor.ID != 0 && auth.CheckAccount(account) == nil {
		token.Grant.Accounts = []string{account}
	}
	return token, nil
}

// renewToken gets a token from the CI provider.
func (a *Agent) renewToken(ctx context.Context) error {
	raw, err := a.NewToken(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Token, a.newToken = raw, time.Now()
	return nil
}

// minTokenAge is how old an ID token has to be for another one to be worth a try: they are good for minutes.
const minTokenAge = time.Minute

// mayComeAgain tells whether an agent that was refused has something else to show.
func (a *Agent) mayComeAgain(ctx context.Context, r *tunnel.Refusal) bool {
	dropped := r.Code == tunnel.CodeBadToken && a.dropRenewal()
	if a.NewToken == nil {
		return dropped
	}
	a.mu.Lock()
	old := a.renewal == "" && time.Since(a.newToken) > minTokenAge
	a.mu.Unlock()
	if !old || !dropped && r.Code != tunnel.CodeExpired {
		return dropped
	}
	if err := a.renewToken(ctx); err != nil {
		a.server.logger().Warn("no new token to register with", "error", err)
		return false
	}
	return true
}

// registeredAs takes the task's name from the gateway if the token does not tell it. By then nobody is served.
func (a *Agent) registeredAs(name string) error {
	s := &a.server
	if !s.taskLater || s.Task != "" && name == string(s.Task) {
		return nil
	}
	task, err := auth.ParseTaskID(name)
	switch {
	case err != nil:
		return fmt.Errorf("agent: the gateway did not say which task this is: %w", err)
	case s.Task != "":
		return fmt.Errorf("agent: the gateway takes this for task %q, and took it for %q before", task, s.Task)
	}
	s.Task = task
	return nil
}
