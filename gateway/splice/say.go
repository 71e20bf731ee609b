package splice

// words are something to be shown to a guest.
type words struct {
	text string
	said chan struct{} // closed when they were written
}

// say shows text to the guest of a session, on its stderr and amid whatever the
// program prints. It does not wait: said is closed when the text was written, or
// at once where nobody would see it, as before a program runs.
func (c *channel) say(text string) (said <-chan struct{}) {
	w := words{text, make(chan struct{})}
	f := c.flows[Host]
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.session || !c.started.Load() || f.eof || f.closed || c.killed.Load() {
		close(w.said)
		return w.said
	}
	f.words = append(f.words, w)
	c.changed.Broadcast()
	return w.said
}

// isLost says whether the guest is to be told that the program's end will not be
// known. c.mu is held.
func (f *flow) isLost() bool {
	return f.from == Host && f.c.session && f.c.started.Load() && !f.exited && !f.lost && f.c.hooks.Lost != nil
}

func (f *flow) sayLost() { f.dst.Stderr().Write([]byte(f.c.hooks.Lost())) }

func (f *flow) say(w words) {
	defer close(w.said)
	f.dst.Stderr().Write([]byte(w.text))
}
