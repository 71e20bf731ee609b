package jwks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Set is a set of keys that is kept fresh, see the package comment. It may be
// used by many goroutines at once.
type Set struct {
	name string
	load loader
	o    Options

	// life ends with Close. An attempt lasts as long as that, and not as long
	// as its first caller: else a stranger who hangs up at once could keep
	// everybody from a new key.
	life context.Context
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu        sync.Mutex
	copy      *snapshot     // nil: none yet
	attempted time.Time     // when the last attempt began
	err       error         // of the last attempt
	running   chan struct{} // closed at the end of the attempt under way; nil: none
	demanded  chan struct{} // the same, if it is to be waited for
	closed    bool
}

// A snapshot is a copy of the keys. It is not changed once it is made.
type snapshot struct {
	keys     []Key
	at       time.Time // when it was known to be good
	location string    // where it is from, and the ETag it had there
	etag     string
}

// A loader reads the keys anew. last is the copy so far, or nil.
type loader func(ctx context.Context, last *snapshot) (*snapshot, error)

func newSet(name string, load loader, o Options) *Set {
	s := &Set{name: name, load: load, o: o}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends the attempt that is under way, and waits for it. From then on the
// set makes no more, and its copy grows stale.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.wg.Wait()
}

// Refresh reads the keys now, and says why it could not. It joins an attempt
// that is under way.
func (s *Set) Refresh(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("%w: %s: closed", ErrUnavailable, s.name)
	}
	done := s.running
	if done == nil {
		done = s.start()
	}
	s.mu.Unlock()
	if err := wait(ctx, done); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, s.name, s.err)
	}
	return nil
}

// Keys returns all keys that count now.
func (s *Set) Keys(ctx context.Context) ([]Key, error) {
	c, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	return append([]Key(nil), c.keys...), nil
}

// Renew has the keys read anew, however old they are, and whoever needs them
// waits for that. It returns at once.
func (s *Set) Renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.running == nil {
		s.start()
	}
	s.demanded = s.running
}

// current returns the copy. It waits for a new one where there is none yet, one
// was asked for, or the one there is has not been looked after for long: an idle
// gateway must not believe a key that was withdrawn last night. While attempts
// fail nobody waits for them as long as the copy counts.
func (s *Set) current(ctx context.Context) (*snapshot, error) {
	c, done := s.look()
	if c != nil {
		return c, nil
	}
	if err := wait(ctx, done); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, s.name, err)
	}
	return s.usable()
}

// atHand returns the copy, or nil where current would wait.
func (s *Set) atHand() *snapshot {
	c, _ := s.look()
	return c
}

// look returns the copy or, where that does not do, what to wait for. It sees to
// it that the copy is renewed when it is time.
func (s *Set) look() (c *snapshot, done chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.demanded != nil {
		return nil, s.demanded
	}
	age := s.age()
	if age >= s.o.Refresh {
		done = s.attempt()
	}
	if age < 2*s.o.Refresh || s.err != nil && age < s.o.MaxStale {
		return s.copy, nil
	}
	return nil, done
}

// renewed returns a copy that is newer than the one given, or nil: when there is
// none, or it is too early to ask again.
func (s *Set) renewed(ctx context.Context, than *snapshot) *snapshot {
	s.mu.Lock()
	var done chan struct{}
	if s.copy == than {
		done = s.attempt()
	}
	s.mu.Unlock()
	if wait(ctx, done) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copy == than {
		return nil
	}
	return s.copy
}

// usable returns the copy if it still counts.
func (s *Set) usable() (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch age := s.age(); {
	case s.copy != nil && age < s.o.MaxStale:
		return s.copy, nil
	case s.err == nil:
		return nil, fmt.Errorf("%w: %s: it has not been read", ErrUnavailable, s.name)
	case s.copy == nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, s.name, s.err)
	default:
		return nil, fmt.Errorf("%w: %s: not since %v: %w", ErrUnavailable, s.name, age.Round(time.Second), s.err)
	}
}

// age is how old the copy is; where there is none, or the clock was set back
// behind it, older than any. s.mu is held.
func (s *Set) age() time.Duration {
	const ancient = 1<<63 - 1
	if s.copy == nil {
		return ancient
	}
	age := s.o.Now().Sub(s.copy.at)
	if age < 0 {
		return 2 * s.o.Refresh // renewed at once, but no reason to forget it
	}
	return age
}

// attempt makes an attempt to renew the copy, unless one is under way or was
// just made. It returns what to wait for, or nil. s.mu is held.
func (s *Set) attempt() chan struct{} {
	if s.running != nil {
		return s.running
	}
	interval := s.o.MinInterval
	if s.age() >= s.o.MaxStale {
		interval /= 10 // nobody gets in meanwhile
	}
	since := s.o.Now().Sub(s.attempted)
	if s.closed || since >= 0 && since < interval {
		return nil
	}
	return s.start()
}

// start makes the attempt. s.mu is held, and none is under way.
func (s *Set) start() chan struct{} {
	done := make(chan struct{})
	s.running = done
	s.attempted = s.o.Now()
	last := s.copy
	s.wg.Go(func() {
		defer close(done)
		s.renew(last)
	})
	return done
}

// renew is the goroutine of an attempt.
func (s *Set) renew(last *snapshot) {
	ctx, cancel := context.WithTimeout(s.life, s.o.Timeout)
	defer cancel()
	began := s.o.Now()
	c, err := s.load(ctx, last)
	if err != nil && s.life.Err() == nil {
		s.o.Logger.WarnContext(ctx, "key set cannot be read", "keys", s.name, "error", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.demanded, s.err = nil, nil, err
	if err == nil {
		c.at = began
		s.copy = c
	}
}

// wait waits for an attempt; nil stands for none.
func wait(ctx context.Context, done <-chan struct{}) error {
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.New("the wait for it was given up")
	}
}
