package hold

import "time"

// A State is how a task fares, in one word.
type State string

// Every State.
const (
	Connecting State = "connecting" // the gateway has not let the agent in yet, or the link was lost
	Registered State = "registered" // nobody is attached
	Attached   State = "attached"   // somebody is, and active while the job is held
	Idle       State = "idle"       // the job is held, and those who are attached do nothing
	Expiring   State = "expiring"   // the hold ends within minutes
	Ended      State = "ended"      // the agent has, Why says why
)

// A Guest is somebody who is attached: whose connection has run something other than the verbs of Stagedoor, or forwards
// something.
type Guest struct {
	Identity string    `json:"identity"`
	Remote   string    `json:"remote,omitempty"` // host:port
	Since    time.Time `json:"since"`
}

// A Status is what is to be known about a task and its hold.
type Status struct {
	Task   string  `json:"task,omitempty"` // none until it is known
	State  State   `json:"state"`
	Guests []Guest `json:"guests"` // the longest attached first

	Held     bool      `json:"held"`
	Since    time.Time `json:"since,omitzero"`    // of the hold
	Deadline time.Time `json:"deadline,omitzero"` // of the hold, as things stand
	Hard     time.Time `json:"hard,omitzero"`     // which no extension goes beyond
	Reason   *Reason   `json:"reason,omitempty"`  // of the hold

	Command *Command `json:"command,omitempty"` // the job's, when it is known; a rerun runs it again
	Rerun   *int     `json:"rerun,omitempty"`   // how the last rerun of it ended
	Outcome *Outcome `json:"outcome,omitempty"` // of the last hold, when that has ended
	Why     string   `json:"why,omitempty"`     // it has ended
}
