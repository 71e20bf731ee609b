package agent

import (
	"io"
	"sync"
)

// view is what a session's guest sees of its program. On a terminal it can also show words of ours, in between.
type view struct {
	server   *Server
	out      io.Writer
	aside    io.Writer // takes the last words where there is no terminal
	terminal bool

	mu    sync.Mutex // held while out is written to; guards the fields below
	shown shownScreen
	words func(alternate bool) string // that wait for a place to be shown; nil: none
	ended bool
}

// Write shows output of the program.
func (v *view) Write(p []byte) (int, error) {
	v.server.touch()
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.out.Write(p)
	if v.terminal && err == nil {
		v.shown.write(p)
		v.show()
	}
	return n, err
}

// say shows words as soon as the output of the program leaves room for them, and forgets others that still wait. It blocks while
// the guest takes nothing. Without a terminal it says nothing: what a program reads there must not be mixed up.
func (v *view) say(words func(alternate bool) string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.terminal {
		v.words = words
		v.show()
	}
}

// show is called with mu held.
func (v *view) show() {
	if v.words == nil || v.ended || !v.shown.between() {
		return
	}
	words := v.words(v.shown.alternate)
	v.words = nil
	io.WriteString(v.out, words)
}

// end is the last that is shown beside the program: words, or nothing when they are empty. A terminal is taken back from the
// program for them.
func (v *view) end(words string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return
	}
	v.ended = true
	switch {
	case words == "":
	case v.terminal:
		io.WriteString(v.out, v.shown.reset()+"\r\n"+words)
	default:
		io.WriteString(v.aside, words)
	}
}
