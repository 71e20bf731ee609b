package main

import (
	"runtime/debug"
	"sync"
)

// pressedGCPercent is GOGC while memory is short: what is let go of may add up to a
// quarter of what is held, not to as much again.
const pressedGCPercent = 25

// A collector has the garbage collector run more often while memory is short.
type collector struct {
	mu     sync.Mutex // guards what follows
	normal int        // GOGC otherwise; 0: memory is not short
}

// press says whether memory is short from now on.
func (c *collector) press(pressed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case pressed && c.normal == 0:
		c.normal = debug.SetGCPercent(pressedGCPercent)
		if c.normal >= 0 && c.normal < pressedGCPercent { // the operator's GOGC
			debug.SetGCPercent(c.normal)
		}
	case !pressed && c.normal != 0:
		debug.SetGCPercent(c.normal)
		c.normal = 0
	}
}
