package splice

import "golang.org/x/crypto/ssh"

// requests is a bounded queue of requests in the order of their arrival. Its
// owner has the lock.
type requests struct {
	list     []*ssh.Request
	bytes    int
	maxCount int
	maxBytes int
}

// push appends r. It returns false when the queue is full. A window-change that
// follows another takes its place: only the last size counts, and a guest who
// drags a window's corner sends hundreds.
func (q *requests) push(r *ssh.Request) bool {
	if n := len(q.list); n > 0 && isResize(r) && isResize(q.list[n-1]) {
		q.bytes += len(r.Payload) - len(q.list[n-1].Payload)
		q.list[n-1] = r
		return true
	}
	if len(q.list) >= q.maxCount || len(q.list) > 0 && q.bytes+len(r.Payload) > q.maxBytes {
		return false
	}
	q.list = append(q.list, r)
	q.bytes += len(r.Payload)
	return true
}

func isResize(r *ssh.Request) bool { return r.Type == "window-change" && !r.WantReply }

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
