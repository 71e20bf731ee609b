package agent

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

// presence is who is attached to a server, and when somebody was last active.
//
// Attached is a guest whose connection has run anything but a verb, or forwards something, for as long as the connection is
// there. Who only asks how things are is not: a monitor must not keep a job.
type presence struct {
	changed func() // called after somebody came or went, with nothing locked; nil: nobody wants to know
	active  atomic.Pointer[time.Time]

	mu     sync.Mutex // guards guests
	guests map[*guest]time.Time
}

// touch notes that a guest is active.
func (p *presence) touch() {
	now := time.Now()
	p.active.Store(&now)
}

// last returns when somebody was last active, came or left; zero when nobody ever was.
func (p *presence) last() time.Time {
	if t := p.active.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// attach notes that a guest is attached from now on.
func (p *presence) attach(g *guest) {
	p.touch()
	p.mu.Lock()
	_, was := p.guests[g]
	if !was {
		if p.guests == nil {
			p.guests = make(map[*guest]time.Time)
		}
		p.guests[g] = time.Now()
	}
	p.mu.Unlock()
	p.tell(!was)
}

// leave notes that a guest's connection has ended.
func (p *presence) leave(g *guest) {
	p.mu.Lock()
	_, was := p.guests[g]
	delete(p.guests, g)
	if was {
		p.touch()
	}
	p.mu.Unlock()
	p.tell(was)
}

func (p *presence) tell(changed bool) {
	if changed && p.changed != nil {
		p.changed()
	}
}

// attached lists who is there, the longest attached first.
func (p *presence) attached() []hold.Guest {
	p.mu.Lock()
	defer p.mu.Unlock()
	guests := make([]hold.Guest, 0, len(p.guests))
	for g, since := range p.guests {
		guests = append(guests, hold.Guest{Identity: g.identity(), Remote: g.remoteText(), Since: since})
	}
	slices.SortFunc(guests, func(a, b hold.Guest) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Remote, b.Remote))
	})
	return guests
}
