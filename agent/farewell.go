package agent

import (
	"sync"
	"time"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// maxFarewell bounds in bytes what may come from elsewhere, such as the gateway.
const maxFarewell = 300

// lastWords is how long a program that was hung up on may take to tidy up the terminal before the guest reads why it was. It
// is also how long the guest may take to read that.
const lastWords = time.Second

// A notice is words for a guest who has a terminal, for the plain screen or the alternate one.
type notice = func(alternate bool) string

// begins notes that something runs in a session from now on.
func (g *guest) begins(s *session) {
	s.notices = make(chan notice, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running == nil {
		g.running = make(map[*session]bool)
	}
	g.running[s] = true
}

// stopped notes that a session has ended.
func (g *guest) stopped(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.running, s)
}

// programs returns the sessions in which something runs.
func (g *guest) programs() (sessions []*session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.running {
		sessions = append(sessions, s)
	}
	return sessions
}

// everyGuest returns who is connected.
func (s *Server) everyGuest() (guests []*guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.guests {
		guests = append(guests, g)
	}
	return guests
}

// notify shows words on the terminals of guests. It never waits for them: of two notices that a guest could not be shown yet, one
// is dropped.
func (s *Server) notify(words func(g *guest) notice) {
	for _, g := range s.everyGuest() {
		for _, session := range g.programs() {
			select {
			case session.notices <- words(g):
			default:
			}
		}
	}
}

// showNotices shows them until the session ends.
func (s *session) showNotices() {
	for {
		select {
		case words := <-s.notices:
			s.view.say(words)
		case <-s.cut:
			return
		}
	}
}

// closeDoor lets no more guests in.
func (s *Server) closeDoor() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// dismiss ends the sessions of all guests, tells them why, and closes their connections. It returns when they are closed, soon
// after the time that programs have to end.
func (s *Server) dismiss(why string) {
	var wg sync.WaitGroup
	for _, g := range s.everyGuest() {
		wg.Go(func() { g.dismiss(why) })
	}
	wg.Wait()
}

func (g *guest) dismiss(why string) {
	defer g.nc.Close()
	patience := time.NewTimer(g.server.grace() + 2*lastWords)
	defer patience.Stop()
	sessions := g.programs()
	for _, s := range sessions {
		s.cutting.Do(func() {
			s.farewell.Store(&why)
			close(s.cut)
		})
	}
	for _, s := range sessions {
		select {
		case <-s.gone:
		case <-patience.C:
			return
		}
	}
}

// hangup ends the program of a session that was cut, and tells the guest why unless it is the guest who has gone.
func (s *session) hangup(p *process) {
	soon := time.AfterFunc(lastWords, func() { s.sayFarewell() })
	defer s.sayFarewell()
	defer soon.Stop()
	p.hangup(s.guest.server.grace())
}

// sayFarewell tells the guest why the host ends the session, once. It is false where it is the guest who has gone.
func (s *session) sayFarewell() bool {
	why := s.farewell.Load()
	if why == nil {
		return false
	}
	s.view.end("stagedoor: this session ends: " + printable.Text(*why, maxFarewell) + "\r\n")
	return true
}
