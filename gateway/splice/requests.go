package splice

import (
	"bytes"

	"golang.org/x/crypto/ssh"
)

// requests is a bounded queue of requests in the order of their arrival. Its
// owner has the lock.
type requests struct {
	list     []*ssh.Request
	bytes    int
	maxCount int
	maxBytes int
}

// push appends r. It returns false when the queue is full. What only says again
// what is still in the queue takes no place of its own.
func (q *requests) push(r *ssh.Request) bool {
	if q.coalesce(r) {
		return true
	}
	if len(q.list) >= q.maxCount || len(q.list) > 0 && q.bytes+len(r.Payload) > q.maxBytes {
		return false
	}
	q.list = append(q.list, r)
	q.bytes += len(r.Payload)
	return true
}

// maxLookBack bounds what a push costs.
const maxLookBack = 16

// coalesce merges r with an equal request that nothing but sizes and signals
// follow: of sizes only the last counts (a guest who drags a window's corner
// sends hundreds), and a signal that is pending is not pending twice, as in
// POSIX. It returns true if that was all there was to do.
func (q *requests) coalesce(r *ssh.Request) bool {
	if !mayCoalesce(r) {
		return false
	}
	for i := len(q.list) - 1; i >= max(0, len(q.list)-maxLookBack) && mayCoalesce(q.list[i]); i-- {
		old := q.list[i]
		if old.Type != r.Type {
			continue
		}
		if r.Type == "window-change" {
			q.bytes += len(r.Payload) - len(old.Payload)
			q.list[i] = r
			return true
		}
		if bytes.Equal(old.Payload, r.Payload) {
			return true
		}
	}
	return false
}

func mayCoalesce(r *ssh.Request) bool {
	return !r.WantReply && (r.Type == "window-change" || r.Type == "signal")
}

// pop takes the oldest request. The queue is not empty.
func (q *requests) pop() *ssh.Request {
	r := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	q.bytes -= len(r.Payload)
	return r
}

func (q *requests) empty() bool { return len(q.list) == 0 }

// startsProgram says whether a session's data may follow once this request was
// granted, without another look at the queue. A request that is not listed here
// costs only that look.
func startsProgram(requestType string) bool {
	return requestType == "shell" || requestType == "exec" || requestType == "subsystem"
}

// endsProgram says whether a request is the last word of a session's program.
func endsProgram(requestType string) bool {
	return requestType == "exit-status" || requestType == "exit-signal"
}
