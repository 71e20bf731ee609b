package forge

import (
	"container/list"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/httpclient"
)

// A Config is how forges are asked. Its zero value knows no forge.
type Config struct {
	Forges []Forge

	FreshFor    time.Duration // how long an answer is used before the forge is asked again; 0: 5 min
	StaleFor    time.Duration // how old it may get while the forge cannot be asked; 0: 1 h; at least FreshFor
	NegativeFor time.Duration // how long after a failure the account is not asked for again; 0: 1 min
	VerifiedFor time.Duration // how long an ID and its name are taken to belong together, for keys that are known; 0: 1 h
	Timeout     time.Duration // for all that one look-up takes; 0: 10 s

	MaxAccounts int // accounts to remember, the least recently used are forgotten; 0: 4096; each may take 64 KiB
	PerMinute   int // requests to one forge within a minute; 0: 300

	RootCAs   *x509.CertPool // who vouches for the forges; nil: whom the system trusts
	AllowHTTP bool           // http:// for loopback addresses, for tests
	Log       *slog.Logger   // where Watch says that an account cannot be looked up; nil: nowhere
	Now       func() time.Time
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.FreshFor, 5 * time.Minute}, {&c.StaleFor, time.Hour}, {&c.NegativeFor, time.Minute},
		{&c.VerifiedFor, time.Hour}, {&c.Timeout, 10 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	c.StaleFor = max(c.StaleFor, c.FreshFor)
	if c.MaxAccounts <= 0 {
		c.MaxAccounts = 4096
	}
	if c.PerMinute <= 0 {
		c.PerMinute = 300
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// A Resolver looks up the keys of accounts and remembers them. It may be used by
// many goroutines at once; it has none of its own. Make it with [New].
type Resolver struct {
	config Config
	sites  map[string]*site
	client *http.Client

	mu      sync.Mutex // guards what follows, and the entries
	entries map[Account]*list.Element
	recent  *list.List // of *entry, the most recently used first
}

// An entry is what is remembered of an account. Guarded by Resolver.mu.
type entry struct {
	account Account
	found   *found        // nil: nothing is known
	err     error         // why the last attempt failed; nil: it did not
	tried   time.Time     // when the forge was asked last
	wait    time.Time     // no attempt before that
	flight  chan struct{} // closed when the attempt under way has ended; nil: there is none
}

// New checks the configuration. Close the Resolver when it is not used any more.
func New(c Config) (*Resolver, error) {
	r := &Resolver{
		config:  c.withDefaults(),
		sites:   map[string]*site{},
		client:  httpclient.New(httpclient.Options{RootCAs: c.RootCAs, MaxBody: maxBody, Idle: atOnce, LoopbackHTTP: c.AllowHTTP}),
		entries: map[Account]*list.Element{},
		recent:  list.New(),
	}
	for _, f := range c.Forges {
		if err := r.add(f); err != nil {
			return nil, fmt.Errorf("forge %.64q: %w", f.Name, err)
		}
	}
	return r, nil
}

func (r *Resolver) add(f Forge) error {
	f.Name = foldASCII(f.Name)
	if err := checkName(f.Name); err != nil {
		return err
	}
	if r.sites[f.Name] != nil {
		return errors.New("there are two of this name")
	}
	if !slices.Contains([]Kind{GitHub, GitLab, Gitea, Forgejo}, f.Kind) {
		return fmt.Errorf("kind %.40q is not known: it is %s, %s, %s or %s", f.Kind, GitHub, GitLab, Gitea, Forgejo)
	}
	if strings.ContainsFunc(f.Token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errors.New("its token has a character that no token has (a line break?)")
	}
	web, api, err := f.places(r.config.AllowHTTP)
	if err != nil {
		return err
	}
	r.sites[f.Name] = &site{
		Forge: f, web: web, api: api, client: r.client, now: r.config.Now,
		slots:  make(chan struct{}, atOnce),
		budget: budget{perMinute: float64(r.config.PerMinute)},
		paused: map[bool]time.Time{}, silent: map[bool]int{},
	}
	return nil
}

// Close gives back idle connections. No other method may be called after it.
func (r *Resolver) Close() { r.client.CloseIdleConnections() }

// Check says whether an account can be looked up: whether its forge is
// configured, and may have a login of this form. It asks nobody.
func (r *Resolver) Check(a Account) error {
	_, err := r.siteOf(a)
	return err
}

func (r *Resolver) siteOf(a Account) (*site, error) {
	s := r.sites[a.Forge]
	if s == nil {
		return nil, fmt.Errorf("forge %.64q is not configured: there is %s", a.Forge, strings.Join(slices.Sorted(maps.Keys(r.sites)), ", "))
	}
	if a.Login == "" && a.ID > 0 {
		return s, nil
	}
	if foldASCII(a.Login) != a.Login || a.ID < 0 {
		return nil, fmt.Errorf("account %.64q is not as ParseAccount makes it", a.String())
	}
	return s, s.Kind.check(a.Login)
}

// Keys returns the keys of an account, and asks the forge unless it did lately.
// One call asks for all that want the same. No keys and no error: the account has
// none that may be used. Errors wrap ErrNoAccount or ErrUnavailable, hold no
// token, and may be shown to who wrote the account down.
func (r *Resolver) Keys(ctx context.Context, a Account) ([]ssh.PublicKey, error) {
	f, err := r.resolve(ctx, a, r.config.FreshFor)
	if err != nil {
		return nil, err
	}
	return f.publicKeys(r.config.Now()), nil
}

// Known returns what Keys would without asking anybody: what is known, if it is
// young enough to count.
func (r *Resolver) Known(a Account) (keys []ssh.PublicKey, ok bool) {
	f := r.known(a)
	if f == nil {
		return nil, false
	}
	return f.publicKeys(r.config.Now()), true
}

func (r *Resolver) known(a Account) *found {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.entries[a]
	if at == nil {
		return nil
	}
	r.recent.MoveToFront(at)
	return r.countable(at.Value.(*entry))
}

// countable is what is known of an account and not too old. Call it with r.mu.
func (r *Resolver) countable(e *entry) *found {
	if e.found == nil || !r.config.Now().Before(e.found.confirmed.Add(r.config.StaleFor)) {
		return nil
	}
	return e.found
}

// resolve returns what is known if it is younger than freshFor, or else asks. It
// returns an older answer that counts when there is no other.
func (r *Resolver) resolve(ctx context.Context, a Account, freshFor time.Duration) (*found, error) {
	f, err := r.ask(ctx, a, freshFor)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", a, err)
	}
	return f, nil
}

func (r *Resolver) ask(ctx context.Context, a Account, freshFor time.Duration) (*found, error) {
	s, err := r.siteOf(a)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for {
		t := r.turn(a, freshFor)
		switch {
		case t.lead:
			return r.lookUp(ctx, s, t.entry)
		case t.flight == nil:
			return t.found, t.err
		}
		select {
		case <-t.flight: // which may have been called off by the one who led it
		case <-ctx.Done():
			return r.outcome(ctx, t.entry)
		}
	}
}

// A turn is what somebody who wants an account has to do: take what there is,
// wait for a flight, or lead one.
type turn struct {
	entry  *entry
	found  *found
	err    error
	flight chan struct{}
	lead   bool
}

func (r *Resolver) turn(a Account, freshFor time.Duration) turn {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.entry(a)
	if err != nil {
		return turn{err: err}
	}
	now := r.config.Now()
	fresh := e.found != nil && now.Before(e.found.confirmed.Add(freshFor))
	switch {
	case fresh:
		return turn{entry: e, found: e.found}
	case now.Before(e.wait):
		if f := r.countable(e); f != nil {
			return turn{entry: e, found: f}
		}
		return turn{entry: e, err: e.err}
	case e.flight != nil:
		return turn{entry: e, flight: e.flight}
	}
	e.flight = make(chan struct{})
	return turn{entry: e, lead: true}
}

// entry finds or makes the entry of an account. Call it with r.mu.
func (r *Resolver) entry(a Account) (*entry, error) {
	if at := r.entries[a]; at != nil {
		r.recent.MoveToFront(at)
		return at.Value.(*entry), nil
	}
	if len(r.entries) >= r.config.MaxAccounts && !r.forgetOne() {
		return nil, fmt.Errorf("%w: too many accounts are being looked up: try again later", ErrUnavailable)
	}
	e := &entry{account: a}
	r.entries[a] = r.recent.PushFront(e)
	return e, nil
}

// forgetOne makes room, if there is an account that nobody asks for now. Call it
// with r.mu.
func (r *Resolver) forgetOne() bool {
	for at := r.recent.Back(); at != nil; at = at.Prev() {
		if e := at.Value.(*entry); e.flight == nil {
			r.recent.Remove(at)
			delete(r.entries, e.account)
			return true
		}
	}
	return false
}

// lookUp makes the one look-up of an account that is under way.
func (r *Resolver) lookUp(ctx context.Context, s *site, e *entry) (*found, error) {
	f, err := r.fly(ctx, s, e)
	if err != nil {
		return r.outcome(ctx, e)
	}
	return f, nil
}

func (r *Resolver) fly(ctx context.Context, s *site, e *entry) (f *found, err error) {
	err = errors.New("the look-up did not end")
	defer func() { r.land(ctx, e, f, err) }() // also when it panics: others wait
	l := lookup{site: s, account: e.account, now: r.config.Now(), verifiedFor: r.config.VerifiedFor}
	r.mu.Lock()
	l.old = e.found
	r.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	return l.run(limited)
}

// land ends a flight and records what it brought.
func (r *Resolver) land(ctx context.Context, e *entry, f *found, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(e.flight)
	e.flight = nil
	if !errors.Is(err, errNotAsked) {
		e.tried = r.config.Now()
	}
	switch {
	case err == nil:
		e.found, e.err, e.wait = f, nil, time.Time{}
	case errors.Is(ctx.Err(), context.Canceled): // says nothing about the forge
	default:
		if errors.Is(err, ErrNoAccount) {
			e.found = nil
		}
		e.err, e.wait = err, r.config.Now().Add(r.config.NegativeFor)
	}
}

// outcome is what there is to say after a failure.
func (r *Resolver) outcome(ctx context.Context, e *entry) (*found, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.countable(e); f != nil {
		return f, nil
	}
	if e.err != nil {
		return nil, e.err
	}
	return nil, fmt.Errorf("%w: there was no time left to wait for %s: %w", ErrUnavailable, e.account.Forge, ctx.Err())
}
