package splice

import (
	"sync"
	"time"
)

// A group counts things that end. Unlike a sync.WaitGroup one can stop waiting
// for it, and it may grow from zero while somebody waits.
type group struct {
	mu   sync.Mutex // guards all below
	n    int
	zero chan struct{} // closed when n becomes zero; made anew when it leaves zero
}

func (g *group) add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == 0 {
		g.zero = make(chan struct{})
	}
	g.n++
}

func (g *group) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 {
		close(g.zero)
	}
}

// Go runs f in a goroutine that is counted.
func (g *group) Go(f func()) {
	g.add()
	go func() {
		defer g.done()
		f()
	}()
}

func (g *group) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// wait returns true as soon as the count is zero, or false after d.
func (g *group) wait(d time.Duration) bool {
	g.mu.Lock()
	n, zero := g.n, g.zero
	g.mu.Unlock()
	if n == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-zero:
		return true
	case <-timer.C:
		return false
	}
}
