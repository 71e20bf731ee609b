package agent

import "time"

// minBusy is how much time programs of a session must have computed between two looks, lookAround apart, to count as busy: more
// than an editor or a shell does that waits for its guest.
const minBusy = lookAround / 50

// busy tells whether programs of guests have computed since it was called last with the same spent, where it keeps what they
// had spent until then.
func (s *Server) busy(spent map[*session]time.Duration) (busy bool) {
	seen := make(map[*session]bool)
	for _, g := range s.everyGuest() {
		for _, session := range g.programs() {
			if session.proc == nil {
				continue
			}
			seen[session] = true
			total := session.proc.cpuTime()
			before, known := spent[session]
			busy = busy || known && total-before >= minBusy
			spent[session] = total
		}
	}
	for session := range spent {
		if !seen[session] {
			delete(spent, session)
		}
	}
	return busy
}
