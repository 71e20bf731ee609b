package gateway

import (
	"regexp"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// taskState is what an agent says of its task. It is for operators to read, and
// nothing depends on it.
type taskState struct {
	name  string    // such as registered, attached or expiring; empty: none
	until time.Time // when the job that is held for guests goes on; zero: it is not held
}

// stateName keeps what operators read to a word.
var stateName = regexp.MustCompile(`^[a-z][a-z-]{0,19}$`)

// note takes what the agent on t says of its task. An older tunnel has no say.
func (s *Server) note(task auth.TaskID, t *tunnel.Tunnel, m tunnel.Message) {
	if !stateName.MatchString(m.State) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[string(task)]; h != nil && h.current == t {
		h.state = taskState{m.State, m.Deadline}
	}
}
