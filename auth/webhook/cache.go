package webhook

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// A cacheKey stands for a question.
type cacheKey [sha256.Size]byte

// A cache remembers answers, and which questions are under way.
type cache struct {
	max int // answers

	mu      sync.Mutex // guards what follows
	entries map[cacheKey]*list.Element
	recent  *list.List // of *remembered, the most recently used first
	flights map[cacheKey]*flight
}

type remembered struct {
	key    cacheKey
	answer *answer
	err    error
	until  time.Time
}

// A flight is a question under way. The other fields may be read when done is
// closed.
type flight struct {
	done      chan struct{}
	answer    *answer
	err       error
	calledOff bool // who asked has gone, which says nothing about the answer
}

func newCache(max int) *cache {
	return &cache{max: max, entries: map[cacheKey]*list.Element{}, recent: list.New(), flights: map[cacheKey]*flight{}}
}

// A turn is what somebody who wants an answer has to do: take what is remembered,
// wait for a flight, or lead one and land it.
type turn struct {
	answer *answer
	err    error
	flight *flight
	lead   bool
}

func (c *cache) turn(key cacheKey, now time.Time) turn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[key]; at != nil {
		if r := at.Value.(*remembered); now.Before(r.until) {
			c.recent.MoveToFront(at)
			return turn{answer: r.answer, err: r.err}
		}
		c.forget(at)
	}
	if f := c.flights[key]; f != nil {
		return turn{flight: f}
	}
	f := &flight{done: make(chan struct{})}
	c.flights[key] = f
	return turn{flight: f, lead: true}
}

// land ends a flight; what it brought is remembered from now for as long as keep.
func (c *cache) land(key cacheKey, f *flight, now time.Time, keep time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(f.done)
	delete(c.flights, key)
	if keep <= 0 {
		return
	}
	c.entries[key] = c.recent.PushFront(&remembered{key: key, answer: f.answer, err: f.err, until: now.Add(keep)})
	for len(c.entries) > c.max {
		c.forget(c.recent.Back())
	}
}

func (c *cache) forget(at *list.Element) {
	delete(c.entries, at.Value.(*remembered).key)
	c.recent.Remove(at)
}
