package webhook

import (
	"sync"
	"time"
)

// A budget is how many questions may be asked: perMinute at once when none were
// for a minute, and as many as time has earned after that. What was refused is not
// remembered, so that strangers who use it up do not use up the cache as well.
type budget struct {
	perMinute float64

	mu   sync.Mutex // guards what follows
	left float64
	at   time.Time
}

func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.at); b.at.IsZero() || passed >= time.Minute {
		b.left = b.perMinute
	} else if passed > 0 {
		b.left = min(b.perMinute, b.left+b.perMinute*passed.Minutes())
	}
	if now.After(b.at) {
		b.at = now
	}
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
