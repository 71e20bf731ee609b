package hold_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

var noon = time.Date(2031, 5, 6, 12, 0, 0, 0, time.UTC)

// at is a time of the day on which every hold here begins at noon.
func at(clock string) time.Time {
	t, err := time.Parse("15:04:05", clock)
	if err != nil {
		panic(err)
	}
	return noon.Truncate(24 * time.Hour).Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second)
}

// event is something that happens to a hold.
type event func(*hold.Clock)

func attach(t string) event   { return func(c *hold.Clock) { c.Attach(at(t)) } }
func leave(t string) event    { return func(c *hold.Clock) { c.Leave(at(t)) } }
func activity(t string) event { return func(c *hold.Clock) { c.Activity(at(t)) } }
func extend(t string, d time.Duration) event {
	return func(c *hold.Clock) { c.Extend(at(t), d) }
}

func TestEnd(t *testing.T) {
	for _, c := range []struct {
		what   string
		set    hold.Settings
		events []event
		end    string
	}{
		{"nobody comes", hold.Settings{}, nil, "12:10:00"},
		{"nobody is waited for", hold.Settings{Wait: hold.None}, nil, "12:00:00"},
		{"nothing is held", hold.Settings{Hard: hold.None}, []event{attach("12:00:00")}, "12:00:00"},
		{"somebody is there from the start", hold.Settings{Wait: hold.None}, []event{attach("12:00:00")}, "12:05:00"},
		{"somebody comes, and does nothing", hold.Settings{}, []event{attach("12:09:00")}, "12:14:00"},
		{"to come ends the wait", hold.Settings{}, []event{attach("12:00:10"), leave("12:00:20")}, "12:05:20"},
		{"activity", hold.Settings{}, []event{attach("12:01:00"), activity("12:08:00")}, "12:13:00"},
		{"activity that is heard of late", hold.Settings{}, []event{attach("12:01:00"), activity("12:08:00"), activity("12:07:00")}, "12:13:00"},
		{"activity before the hold", hold.Settings{}, []event{activity("11:59:00")}, "12:10:00"},
		{"a visit before the hold", hold.Settings{}, []event{leave("12:00:00")}, "12:10:00"},
		{"activity that is older than the hold", hold.Settings{}, []event{attach("12:00:00"), activity("11:00:00")}, "12:05:00"},
		{"the last one leaves", hold.Settings{}, []event{attach("12:01:00"), activity("12:02:00"), leave("12:04:00")}, "12:09:00"},
		{"no grace", hold.Settings{Grace: hold.None}, []event{attach("12:01:00"), leave("12:04:00")}, "12:04:00"},
		{"back in time", hold.Settings{}, []event{attach("12:01:00"), leave("12:02:00"), attach("12:06:00")}, "12:11:00"},
		{"an extension", hold.Settings{}, []event{extend("12:01:00", 30*time.Minute)}, "12:31:00"},
		{"an extension shortens nothing", hold.Settings{}, []event{extend("12:01:00", time.Minute)}, "12:10:00"},
		{"a shorter extension after a longer one", hold.Settings{}, []event{extend("12:01:00", 30*time.Minute), extend("12:02:00", 5*time.Minute)}, "12:31:00"},
		{"nobody stays for an extension", hold.Settings{}, []event{attach("12:01:00"), extend("12:01:00", 30*time.Minute), leave("12:02:00")}, "12:31:00"},
		{"activity behind an extension", hold.Settings{}, []event{attach("12:01:00"), extend("12:01:00", 10*time.Minute), activity("12:10:00")}, "12:15:00"},
		{"an extension beyond the hard end", hold.Settings{}, []event{extend("12:01:00", 24*time.Hour)}, "13:00:00"},
		{"an endless extension", hold.Settings{}, []event{extend("12:01:00", 1<<63-1)}, "13:00:00"},
		{"an extension into the past", hold.Settings{}, []event{extend("12:01:00", -time.Hour)}, "12:10:00"},
		{"activity up to the hard end", hold.Settings{}, []event{attach("12:01:00"), activity("12:58:00")}, "13:00:00"},
		{"the wait is longer than all", hold.Settings{Wait: 2 * time.Hour}, nil, "13:00:00"},
		{"the timeout of the job", hold.Settings{Latest: at("12:03:00")}, []event{extend("12:01:00", time.Hour)}, "12:03:00"},
		{"the timeout of the job is far", hold.Settings{Latest: at("14:00:00")}, []event{extend("12:01:00", 3*time.Hour)}, "13:00:00"},
		{"the timeout of the job is over", hold.Settings{Latest: at("11:00:00")}, []event{attach("12:00:00")}, "11:00:00"},
		{"clocks that were set", hold.Settings{Wait: time.Minute, Grace: 2 * time.Minute, Hard: 3 * time.Minute}, []event{attach("12:00:30"), activity("12:02:00")}, "12:03:00"},
	} {
		clock := hold.NewClock(c.set, noon)
		for _, happens := range c.events {
			happens(clock)
		}
		if got := clock.End(); !got.Equal(at(c.end)) {
			t.Errorf("%s: ends at %s, want %s", c.what, got.Format("15:04:05"), c.end)
		}
	}
}

// TestEndFollowsTheFormula holds random histories against the formula, computed from the whole history each time.
func TestEndFollowsTheFormula(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		span := func(most time.Duration) time.Duration { return time.Duration(r.Int64N(int64(most))) + 1 }
		set := hold.Settings{Wait: span(20 * time.Minute), Grace: span(10 * time.Minute), Hard: span(90 * time.Minute)}
		clock, now := hold.NewClock(set, noon), noon
		hard := noon.Add(set.Hard)
		var last, pinned time.Time // of what guests did; of extensions
		attached := false
		for range 40 {
			now = now.Add(span(4 * time.Minute))
			before := clock.End()
			switch r.IntN(4) {
			case 0:
				clock.Attach(now)
				last, attached = now, true
			case 1:
				clock.Leave(now)
				if attached {
					last = now
				}
				attached = false
			case 2:
				clock.Activity(now)
				if !last.IsZero() {
					last = now
				}
			case 3:
				d := span(time.Hour)
				clock.Extend(now, d)
				pinned = latest(pinned, now.Add(d))
				if clock.End().Before(before) {
					t.Fatalf("seed %d: an extension has moved the end from %s to %s", seed, before, clock.End())
				}
			}
			soft := noon.Add(set.Wait)
			if !last.IsZero() {
				soft = last.Add(set.Grace)
			}
			want := latest(soft, pinned)
			if hard.Before(want) {
				want = hard
			}
			if !clock.End().Equal(want) {
				t.Fatalf("seed %d: ends at %s, want %s", seed, clock.End(), want)
			}
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// TestNextIsWhenSomethingChanges steps through holds from one Next to the next, and looks that nothing was missed between.
func TestNextIsWhenSomethingChanges(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 0))
		span := func(most time.Duration) time.Duration { return time.Duration(r.Int64N(int64(most))) + 1 }
		clock, now := hold.NewClock(hold.Settings{Wait: span(20 * time.Minute), Grace: span(20 * time.Minute)}, noon), noon
		if r.IntN(2) == 0 {
			clock.Attach(now)
		}
		if r.IntN(2) == 0 {
			clock.Extend(now, span(40*time.Minute))
		}
		clock.Notice(now)
		for steps := 0; now.Before(clock.End()); steps++ {
			next, state := clock.Next(now), clock.State(now)
			if !next.After(now) || next.After(clock.End()) || steps > 4 {
				t.Fatalf("seed %d: at %s the next is %s, after %d steps; the end is %s", seed, now, next, steps, clock.End())
			}
			between := now.Add(time.Duration(r.Int64N(int64(next.Sub(now)))))
			if got := clock.State(between); got != state {
				t.Fatalf("seed %d: %s at %s, and %s at %s though nothing was due before %s", seed, state, now, got, between, next)
			}
			if n, due := clock.Notice(between); due {
				t.Fatalf("seed %d: %+v at %s, which was not due before %s", seed, n, between, next)
			}
			now = next
			clock.Notice(now)
		}
		if next := clock.Next(now); !next.Equal(now) {
			t.Fatalf("seed %d: at the end the next is %s, want %s", seed, next, now)
		}
	}
}

// told steps through a hold second by second and notes the notices.
func told(clock *hold.Clock, from, to string) (notices []string) {
	for now := at(from); !now.After(at(to)); now = now.Add(time.Second) {
		if n, due := clock.Notice(now); due {
			text := now.Format("15:04:05") + " " + n.Left.String()
			if n.Idle {
				text += " idle"
			}
			if n.Final {
				text += " final"
			}
			notices = append(notices, text)
		}
	}
	return notices
}

func TestNotices(t *testing.T) {
	for _, c := range []struct {
		what   string
		set    hold.Settings
		events []event
		want   []string
	}{
		{"waiting", hold.Settings{}, nil, []string{"12:05:00 5m0s", "12:09:00 1m0s"}},
		{"a short wait", hold.Settings{Wait: time.Minute}, nil, []string{"12:00:30 30s"}},
		{"idle", hold.Settings{}, []event{attach("12:00:00")}, []string{"12:02:30 2m30s idle", "12:04:00 1m0s idle"}},
		{"idle with a long grace", hold.Settings{Grace: 20 * time.Minute}, []event{attach("12:00:00")}, []string{"12:15:00 5m0s idle", "12:19:00 1m0s idle"}},
		{"gone", hold.Settings{}, []event{attach("12:00:00"), leave("12:01:00")}, []string{"12:03:30 2m30s", "12:05:00 1m0s"}},
		{"extended", hold.Settings{}, []event{attach("12:00:00"), extend("12:00:00", 20*time.Minute)}, []string{"12:15:00 5m0s", "12:19:00 1m0s"}},
		{"up to the hard end", hold.Settings{Hard: 30 * time.Minute}, []event{attach("12:00:00"), extend("12:00:00", time.Hour)}, []string{"12:25:00 5m0s final", "12:29:00 1m0s final"}},
	} {
		clock := hold.NewClock(c.set, noon)
		for _, happens := range c.events {
			happens(clock)
		}
		got := told(clock, "12:00:00", "12:40:00")
		if len(got) != len(c.want) {
			t.Errorf("%s: told %q, want %q", c.what, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: told %q, want %q", c.what, got, c.want)
			}
		}
	}
}

// TestNoticesAgain: who was warned, and stays, is warned again before the next end.
func TestNoticesAgain(t *testing.T) {
	clock := hold.NewClock(hold.Settings{}, noon)
	clock.Attach(noon)
	if got := told(clock, "12:00:00", "12:03:00"); len(got) != 1 {
		t.Fatalf("told %q", got)
	}
	clock.Activity(at("12:03:00"))
	if got := told(clock, "12:03:01", "12:05:29"); len(got) != 0 {
		t.Fatalf("told %q while active", got)
	}
	if got := told(clock, "12:05:30", "12:08:00"); len(got) != 2 {
		t.Fatalf("told %q before the next end", got)
	}
}

func TestState(t *testing.T) {
	clock := hold.NewClock(hold.Settings{}, noon)
	for _, c := range []struct {
		happens event
		at      string
		want    hold.State
	}{
		{nil, "12:00:00", hold.Registered},
		{nil, "12:06:00", hold.Expiring},
		{attach("12:07:00"), "12:07:00", hold.Attached},
		{nil, "12:09:29", hold.Attached},
		{nil, "12:09:30", hold.Idle},
		{activity("12:10:00"), "12:10:00", hold.Attached},
		{nil, "12:14:00", hold.Expiring},
		{extend("12:14:00", 30*time.Minute), "12:14:00", hold.Idle},
		{leave("12:15:00"), "12:15:00", hold.Registered},
		{attach("12:50:00"), "12:50:00", hold.Attached},
		{activity("12:55:00"), "12:55:00", hold.Expiring},
	} {
		if c.happens != nil {
			c.happens(clock)
		}
		if got := clock.State(at(c.at)); got != c.want {
			t.Errorf("at %s: %s, want %s", c.at, got, c.want)
		}
	}
}
