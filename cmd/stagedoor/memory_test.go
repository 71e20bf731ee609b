package main

import (
	"runtime/debug"
	"testing"
)

// gcPercent is GOGC as it is.
func gcPercent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

// TestCollectorUnderPressure: the collector works harder while memory is short, and
// then as before, whatever the operator has set.
func TestCollectorUnderPressure(t *testing.T) {
	defer debug.SetGCPercent(gcPercent())
	for _, normal := range []int{100, 10, 300} {
		debug.SetGCPercent(normal)
		var c collector
		for _, pressed := range []bool{false, true, true, false, false} {
			c.press(pressed)
			want := normal
			if pressed {
				want = min(normal, pressedGCPercent)
			}
			if got := gcPercent(); got != want {
				t.Errorf("GOGC %d, pressed %v: it is %d, want %d", normal, pressed, got, want)
			}
		}
	}
}
