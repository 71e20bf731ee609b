package hold

import "time"

// A Clock says when a hold ends. Its methods must not be called at once.
type Clock struct {
	settings Settings
	start    time.Time
	hard     time.Time
	pinned   time.Time // zero: nobody has extended it
	activity time.Time // last activity, arrival or departure of a guest; zero: none since start
	attached bool
	told     int // which of the notices guests have read
}

// NewClock starts the clocks of a hold that begins at start.
func NewClock(s Settings, start time.Time) *Clock {
	s = s.Or(Settings{Wait: DefaultWait, Grace: DefaultGrace, Hard: DefaultHard})
	s.Wait, s.Grace, s.Hard = max(s.Wait, 0), max(s.Grace, 0), max(s.Hard, 0)
	return &Clock{settings: s, start: start, hard: earlier(start.Add(s.Hard), s.Latest)}
}

// Attach notes that somebody is attached from now on.
func (c *Clock) Attach(now time.Time) {
	c.attached = true
	c.active(now)
}

// Leave notes that nobody is attached any more.
func (c *Clock) Leave(now time.Time) {
	if c.attached {
		c.active(now)
	}
	c.attached = false
}

// Activity notes that somebody who was attached did something at a time. What came before the hold does not count.
func (c *Clock) Activity(at time.Time) {
	if !c.activity.IsZero() {
		c.active(at)
	}
}

func (c *Clock) active(at time.Time) {
	if at.Before(c.start) {
		at = c.start
	}
	if at.After(c.activity) {
		c.activity = at
	}
}

// Extend keeps the hold open for d from now on, if its hard end allows, and returns its end. It never shortens a hold.
func (c *Clock) Extend(now time.Time, d time.Duration) time.Time {
	if to := earlier(now.Add(d), c.hard); to.After(c.pinned) {
		c.pinned = to
	}
	return c.End()
}

// soft is the end that moves with what guests do.
func (c *Clock) soft() time.Time {
	if c.activity.IsZero() {
		return c.start.Add(c.settings.Wait)
	}
	return c.activity.Add(c.settings.Grace)
}

// End returns when the hold ends, unless something happens until then.
func (c *Clock) End() time.Time {
	end := c.soft()
	if c.pinned.After(end) {
		end = c.pinned
	}
	return earlier(end, c.hard)
}

// Hard returns the time that End is never after.
func (c *Clock) Hard() time.Time { return c.hard }

// Start returns when the hold began.
func (c *Clock) Start() time.Time { return c.start }

// When guests are told that the hold ends: twice, the second time because the first was missed or put off.
const (
	firstNotice = 5 * time.Minute
	lastNotice  = time.Minute
)

// A Notice is what guests are to be told of the end.
type Notice struct {
	End   time.Time
	Left  time.Duration // until then
	Idle  bool          // those who are attached have done nothing for a while; End moves as soon as they do
	Final bool          // End is the hard one, and cannot be put off
}

// ahead returns how long before the end the two notices are due. No more than half of what was given in the first place is
// spent on them, so that a pause in typing is not taken for the end.
func (c *Clock) ahead() (first, last time.Duration) {
	whole := c.settings.Grace
	switch end := c.End(); {
	case end.Equal(c.hard):
		whole = c.hard.Sub(c.start)
	case end.Equal(c.pinned):
		return firstNotice, lastNotice
	case c.activity.IsZero():
		whole = c.settings.Wait
	}
	return min(firstNotice, whole/2), min(lastNotice, whole/2)
}

// step is how near the end is: 0, 1 from the first notice on, 2 from the last one on.
func (c *Clock) step(now time.Time) int {
	first, last := c.ahead()
	switch left := c.End().Sub(now); {
	case left <= last:
		return 2
	case left <= first:
		return 1
	}
	return 0
}

// idle tells whether the end comes because those who are attached do nothing.
func (c *Clock) idle() bool {
	return c.attached && c.End().Equal(c.soft()) && !c.End().Equal(c.hard)
}

// Notice returns what guests are to be told now, if anything. It returns each notice once, and again only when the end was put
// off meanwhile.
func (c *Clock) Notice(now time.Time) (n Notice, due bool) {
	step, told := c.step(now), c.told
	c.told = step
	if step <= told {
		return Notice{}, false
	}
	end := c.End()
	return Notice{End: end, Left: max(end.Sub(now), 0), Idle: c.idle(), Final: end.Equal(c.hard)}, true
}

// State returns Registered, Attached, Idle or Expiring.
func (c *Clock) State(now time.Time) State {
	step := c.step(now)
	switch {
	case step == 2 || step == 1 && !c.idle():
		return Expiring
	case !c.attached:
		return Registered
	case !now.Before(c.idleFrom()):
		return Idle
	}
	return Attached
}

// idleFrom is when those who are attached count as idle.
func (c *Clock) idleFrom() time.Time { return c.activity.Add(c.settings.Grace / 2) }

// Next returns the next time after now at which Notice or State have something new to say or End is reached, unless something
// happens until then; now itself when the end is reached already.
func (c *Clock) Next(now time.Time) time.Time {
	end := c.End()
	first, last := c.ahead()
	next := end
	for _, t := range []time.Time{end.Add(-first), end.Add(-last), c.idleFrom()} {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	if next.Before(now) {
		return now
	}
	return next
}
