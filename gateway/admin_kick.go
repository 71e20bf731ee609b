package gateway

import (
	"strings"
	"sync"
	"time"
)

// sayTime is how long a guest who is thrown out may take to be told why.
const sayTime = time.Second

// kickGuests ends the connections of guests, and returns how many.
func (s *Server) kickGuests(match func(*guest) bool, by ender, why string) int {
	s.mu.Lock()
	var out []*guest
	for g := range s.guests {
		if match(g) {
			out = append(out, g)
		}
	}
	s.mu.Unlock()
	var kicking sync.WaitGroup
	for _, g := range out {
		kicking.Go(func() { g.kick(by, why) })
	}
	kicking.Wait()
	return len(out)
}

// kick ends a guest's connection, and says why in its sessions.
func (g *guest) kick(by ender, why string) {
	g.activity.ends(by, why)
	timer := time.NewTimer(sayTime)
	defer timer.Stop()
	for _, said := range g.activity.say("\r\nstagedoor: " + oneLine(why) + "\r\n") {
		select {
		case <-said:
		case <-timer.C:
			timer.Reset(0) // for the others
		}
	}
	g.close(by, why)
}

// oneLine keeps words of a reason from steering a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// say shows words in all sessions.
func (a *activity) say(words string) (said []<-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for d := range a.open {
		if say := d.say.Load(); say != nil {
			said = append(said, (*say)(words))
		}
	}
	return said
}

// jumpsAs reports whether the guest is in some task under that name.
func (a *activity) jumpsAs(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for d := range a.open {
		if d.identity != "" && strings.EqualFold(d.identity, name) {
			return true
		}
	}
	return false
}
