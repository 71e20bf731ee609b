package agent

import "errors"

// errViewLost is what attach returns when the view went before the output had ended.
var errViewLost = errors.New("the guest has gone")

// command says what to start and around what.
type command struct {
	path     string
	args     []string // with argv[0]
	env      []string
	dir      string
	terminal *terminal // nil: pipes. The process owns it from then on, unless starting it fails.
}

// winsize is a terminal's size in characters and in pixels, as pty-req and window-change carry it.
type winsize struct{ Columns, Rows, Width, Height uint32 }
