package splice

import "sync"

// tickets are the hooks of channels that are open, or about to be.
type tickets struct {
	mu   sync.Mutex // guards open
	open map[*ticket]struct{}
}

// A ticket is the right to call Closed, once.
type ticket struct{ ChannelHooks }

// opened notes that h, which may be nil, will have to be told.
func (j *join) opened(h *ChannelHooks) *ticket {
	t := new(ticket)
	if h != nil {
		t.ChannelHooks = *h
	}
	j.tickets.mu.Lock()
	defer j.tickets.mu.Unlock()
	if j.tickets.open == nil {
		j.tickets.open = make(map[*ticket]struct{})
	}
	j.tickets.open[t] = struct{}{}
	return t
}

// closed tells the hooks of a channel, which may be nil, that it is no more.
func (j *join) closed(t *ticket) {
	defer j.rescue(nil)
	if t != nil && j.tickets.take(t) && t.Closed != nil {
		t.Closed()
	}
}

// closeAll does so for channels whose goroutines hang.
func (j *join) closeAll() {
	for _, t := range j.tickets.all() {
		j.closed(t)
	}
}

func (s *tickets) take(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.open[t]
	delete(s.open, t)
	return ok
}

func (s *tickets) all() []*ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*ticket, 0, len(s.open))
	for t := range s.open {
		all = append(all, t)
	}
	return all
}
