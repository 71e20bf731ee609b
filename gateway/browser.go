package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/person"
)

// SignIn lets in people without a key that anybody knows: their ssh shows a link to
// Settings.HTTPSAddress, and they say in a browser who they are.
type SignIn struct {
	// Providers are whom people may sign in with. Settings.Guests needs a
	// [person.Authorizer].
	Providers []*person.Provider
	// RememberFor is how long a key lets in whoever said that it is theirs. 0: people
	// are not asked.
	RememberFor time.Duration
	// Relevant leaves of a person what is kept for that. Nil: no claims.
	Relevant func(*auth.Person) *auth.Person
}

// provider finds one by its name.
func (s *SignIn) provider(name string) *person.Provider {
	if s == nil {
		return nil
	}
	for _, p := range s.Providers {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// maxFlows is how many sign-ins of one guest may be under way: whoever presses
// twice, or goes back, has the last ones.
const maxFlows = 8

// browsers are the guests who wait for somebody to sign in by a browser.
type browsers struct {
	places *throttle

	mu       sync.Mutex // guards what follows, and the attempts
	draining bool
	attempts map[string]*attempt // by code
	flows    map[string]*flow    // by state
}

func newBrowsers() *browsers {
	return &browsers{places: newThrottle(), attempts: make(map[string]*attempt), flows: make(map[string]*flow)}
}

// An attempt is one guest who waits.
type attempt struct {
	code    string // in the link; secret between the guest and whoever it shows it to
	short   string // to compare
	user    string // as it was given
	remote  string
	keys    []ssh.PublicKey // that were offered, and opened nothing
	until   time.Time
	signIn  *SignIn
	url     string            // of this gateway, without a path
	answers chan personAnswer // takes one
	verdict chan verdict      // takes one
	over    chan struct{}     // closed when the guest waits no more

	answered bool    // guarded by browsers.mu
	flows    []*flow // guarded by browsers.mu
}

// A personAnswer says who signed in, and which keys they said are theirs, by fingerprint.
type personAnswer struct {
	who      *auth.Person
	remember []string
}

// A verdict is what becomes of a guest, in words for the browser.
type verdict struct {
	admitted bool
	who      string
}

// A flow is a browser that was led to a provider on behalf of an attempt.
type flow struct {
	attempt  *attempt
	provider *person.Provider
	begun    *person.Flow
	browser  [sha256.Size]byte // hash of its cookie
	remember []string          // fingerprints of keys
}

// shortAlphabet has no letters that are taken for others, or make words.
const shortAlphabet = "BCDFGHJKLMNPQRSTVWXZ"

// newShort makes a code for people to compare: somebody who sends another person a
// link of their own has to explain why the codes differ.
func newShort() string {
	random := make([]byte, 8)
	rand.Read(random)
	for i, b := range random {
		random[i] = shortAlphabet[int(b)%len(shortAlphabet)]
	}
	return string(random[:4]) + "-" + string(random[4:])
}

// open has a guest wait. It fails when the gateway drains.
func (b *browsers) open(a *attempt) error {
	a.code, a.short = rand.Text(), newShort()
	a.answers, a.verdict, a.over = make(chan personAnswer, 1), make(chan verdict, 1), make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.draining {
		return errDraining
	}
	b.attempts[a.code] = a
	return nil
}

// end has a guest wait no more. It may be called again.
func (b *browsers) end(a *attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(a)
	if !isClosed(a.over) {
		close(a.over)
	}
}

// forget has links and browsers of an attempt lead nowhere. b.mu is held.
func (b *browsers) forget(a *attempt) {
	delete(b.attempts, a.code)
	for _, f := range a.flows {
		delete(b.flows, f.begun.State)
	}
	a.flows = nil
}

var errDraining = errors.New("the gateway is shutting down")

// drain ends all who wait: they would keep a gateway from ending.
func (b *browsers) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draining = true
	for _, a := range b.attempts {
		b.forget(a)
		close(a.over)
	}
}

// find returns the attempt that a link leads to, nil if it is over.
func (b *browsers) find(code string) *attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.attempts[code]
}

// lead notes that a browser is led to a provider. It reports false when the
// attempt is over.
func (b *browsers) lead(f *flow) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := f.attempt
	if b.attempts[a.code] != a {
		return false
	}
	if len(a.flows) >= maxFlows {
		delete(b.flows, a.flows[0].begun.State)
		a.flows = a.flows[1:]
	}
	a.flows = append(a.flows, f)
	b.flows[f.begun.State] = f
	return true
}

// comeBack finds the flow of a browser that has come back, nil if there is none, it
// is another browser's, or of another provider. A state is good for one time.
func (b *browsers) comeBack(state, provider string, browser [sha256.Size]byte) *flow {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.flows[state]
	if f == nil || f.provider.Name() != provider || subtle.ConstantTimeCompare(f.browser[:], browser[:]) != 1 {
		return nil
	}
	delete(b.flows, state)
	f.attempt.flows = slices.DeleteFunc(f.attempt.flows, func(other *flow) bool { return other == f })
	return f
}

// answer says who has signed in for a guest. The first one counts, and ends all
// other browsers' way.
func (b *browsers) answer(a *attempt, said personAnswer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.attempts[a.code] != a || a.answered {
		return false
	}
	a.answered = true
	b.forget(a)
	a.answers <- said
	return true
}

// await waits for somebody to sign in. The error is made for the guest.
func (a *attempt) await(ctx context.Context) (personAnswer, error) {
	select {
	case said := <-a.answers:
		return said, nil
	case <-a.over:
		return personAnswer{}, errDraining
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return personAnswer{}, errors.New("nobody signed in in time")
		}
		return personAnswer{}, ctx.Err()
	}
}
