package auth

import (
	"context"
	"sync"
	"time"
)

// Places counts what one limit is about. The zero value is ready, and it may be used
// by many goroutines at once.
type Places struct {
	mu    sync.Mutex // guards what follows
	taken int
	freed chan struct{} // closed when a place is given back; nil: nobody waits
}

// placeWait is how long who finds no place waits for one: a guest who has left is
// noticed to have only when what it was connected to has been closed.
const placeWait = 4 * time.Second

// Take takes a place, if fewer than limit are taken or limit is 0. It waits a few
// seconds for one to be given back, or until ctx ends, and returns false when none
// was. give gives the place back, and may be called again.
func (p *Places) Take(ctx context.Context, limit int) (give func(), ok bool) {
	var timeout <-chan time.Time
	for {
		freed := p.try(limit)
		if freed == nil {
			return sync.OnceFunc(p.give), true
		}
		if timeout == nil {
			timer := time.NewTimer(placeWait)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-freed:
		case <-timeout:
			return nil, false
		case <-ctx.Done():
			return nil, false
		}
	}
}

// try takes a place, and otherwise returns what is closed when there may be one.
func (p *Places) try(limit int) (freed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit <= 0 || p.taken < limit {
		p.taken++
		return nil
	}
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	return p.freed
}

func (p *Places) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// Taken is how many places are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
