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
