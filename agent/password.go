package agent

import (
	"sync"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// password is the task's one-time password. Its zero value is none.
type password struct {
	mu   sync.Mutex // guards what follows
	text string     // empty: there is none, or it was used
}

// make makes a password where a grant wants one. Guests give it to the gateway, so
// there is none where that lets nobody in.
func (p *password) make(grant *auth.Grant, endToEndOnly bool) {
	if !grant.OneTimePassword || endToEndOnly {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = auth.NewOneTimePassword()
}

// show is for the job's log alone.
func (p *password) show() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text
}

// hash is what the gateway is told: it has no use for the password itself until a
// guest gives it.
func (p *password) hash() []byte {
	text := p.show()
	if text == "" {
		return nil
	}
	hash := auth.HashOneTimePassword(text)
	return hash[:]
}

// use forgets the password, and reports whether there was one.
func (p *password) use() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.text != ""
	p.text = ""
	return had
}

// onMessage hears from the gateway that somebody came in by the password.
func (a *Agent) onMessage(m tunnel.Message) {
	if m.Type == tunnel.TypePasswordUsed && a.password.use() {
		a.server.logger().Info("the one-time password was used: it lets nobody in any more")
	}
}
