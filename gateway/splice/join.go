package splice

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// limits are the times and sizes of a join. Tests shorten them.
type limits struct {
	input    time.Duration // how long a session's input is delivered after a guest's CLOSE
	exit     time.Duration // how long output must have been quiet before a held exit status goes out
	reply    time.Duration // how long a closed channel waits for replies to the host's last requests
	order    time.Duration // how long one message waits for another so that their order is kept
	guestEnd time.Duration // how long channels may take to end after the guest's connection
	hostEnd  time.Duration // the same after the host's
	end      time.Duration // how long goroutines may take to end once both connections are closed

	requests int // unanswered requests of one channel, or global ones of one connection
	bytes    int // and their payloads
	opens    int // channels from one side that the other has not answered yet
}

var defaultLimits = limits{
	input:    2 * time.Second,
	exit:     time.Second,
	reply:    5 * time.Second,
	order:    10 * time.Second,
	guestEnd: 3 * time.Second,
	hostEnd:  30 * time.Second,
	end:      10 * time.Second,
	requests: 1024,
	bytes:    1 << 20,
	opens:    1024,
}

// A join is two legs and the channels between them.
type join struct {
	hooks  Hooks
	log    *slog.Logger
	limits limits
	legs   [2]*leg // by Side
	reach  reach   // the way to the host

	serving     context.Context // see ServeFunc
	stopServing context.CancelFunc

	asked      asked // by the guest
	tickets    tickets
	channels   group // open channels
	goroutines group // all goroutines
	abandoned  chan struct{}

	endOnce sync.Once
	ended   chan struct{} // closed when a leg's connection has ended
	endedBy Side          // read after ended is closed
}

// A leg is one of the two connections.
type leg struct {
	j    *join
	side Side
	conn Conn

	opening openings
	globals globals
}

func joinWith(guest, host Conn, h *Hooks, l limits) Side {
	j := newJoin(guest, h, l)
	j.reach.attempt = &attempt{done: make(chan struct{})}
	close(j.reach.attempt.done)
	j.attach(host)
	j.run()
	return j.endedBy
}

func joinLater(guest Conn, dial func(context.Context) (Conn, error), h *Hooks, l limits) Side {
	j := newJoin(guest, h, l)
	j.reach.dial = dial
	j.run()
	return j.endedBy
}

func newJoin(guest Conn, h *Hooks, l limits) *join {
	j := &join{limits: l, abandoned: make(chan struct{}), ended: make(chan struct{})}
	if h != nil {
		j.hooks = *h
	}
	j.log = j.hooks.Log
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	j.legs[Guest], j.legs[Host] = newLeg(j, Guest, guest), newLeg(j, Host, Conn{})
	j.serving, j.stopServing = context.WithCancel(context.Background())
	j.reach.ctx, j.reach.cancel = context.WithCancel(context.Background())
	return j
}

func newLeg(j *join, side Side, c Conn) *leg {
	l := &leg{j: j, side: side, conn: c}
	l.opening.init()
	l.globals.init(j.limits)
	return l
}

func (l *leg) other() *leg { return l.j.legs[l.side.other()] }

// listen reads what the leg's peer sends.
func (l *leg) listen() {
	l.j.goroutines.Go(l.receiveChannels)
	l.j.goroutines.Go(l.receiveGlobals)
	l.j.goroutines.Go(l.passGlobals)
}

func (j *join) run() {
	defer j.stopServing()
	j.legs[Guest].listen()
	<-j.ended
	j.reach.cancel()
	j.channels.wait(j.lingering())
	j.stopServing()
	j.goroutines.Go(j.legs[Guest].close)
	if j.reach.close() {
		j.goroutines.Go(j.legs[Host].close)
	}
	if j.goroutines.wait(j.limits.end) {
		return
	}
	// What still runs hangs in x/crypto, or reads a queue that x/crypto will
	// never close. The latter can be told.
	close(j.abandoned)
	if !j.goroutines.wait(time.Second) {
		j.log.Warn("connection did not end: goroutines left behind", "count", j.goroutines.count())
	}
	j.closeAll()
}

func (j *join) lingering() time.Duration {
	if j.endedBy == Guest {
		return j.limits.guestEnd
	}
	return j.limits.hostEnd
}

// end records that l's connection has ended.
func (l *leg) end() {
	l.j.endOnce.Do(func() {
		l.j.endedBy = l.side
		close(l.j.ended)
	})
}

func (j *join) isEnding() bool {
	select {
	case <-j.ended:
		return true
	default:
		return false
	}
}

func (l *leg) close() {
	if l.conn.Closer != nil {
		l.conn.Closer.Close()
	}
	l.conn.Close()
}

// cut closes l's connection because its peer does what no sane one does.
func (l *leg) cut(why string) {
	l.j.log.Warn("connection cut off", "side", l.side.String(), "reason", why)
	l.j.goroutines.Go(l.close)
}

// rescue is deferred where something may panic; then, if not nil, is called
// after a panic was reported.
func (j *join) rescue(then func()) {
	v := recover()
	if v == nil {
		return
	}
	j.report(v, debug.Stack())
	if then != nil {
		then()
	}
}

func (j *join) report(v any, stack []byte) {
	defer func() { recover() }() // a hook that panics about a panic
	if j.hooks.Panic != nil {
		j.hooks.Panic(v, stack)
		return
	}
	j.log.Error("panic", "value", v, "stack", string(stack))
}
