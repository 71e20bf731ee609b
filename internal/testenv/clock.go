package testenv

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
)

// Noon is a moment for tests with a clock of their own.
var Noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A Clock stands still until it is told. It begins at Noon, and may be used by
// many goroutines at once.
type Clock struct{ passed atomic.Int64 }

// Now is the time by the clock.
func (c *Clock) Now() time.Time { return Noon.Add(time.Duration(c.passed.Load())) }

// Advance lets time pass, or turns the clock back.
func (c *Clock) Advance(d time.Duration) { c.passed.Add(int64(d)) }

// CheckText fails the test when the text of an error would not fit on one line of
// a log, could play tricks on a terminal, or holds the word s3cret, which tests
// put where secrets are.
func CheckText(t testing.TB, err error) {
	t.Helper()
	s := err.Error()
	if len(s) > 600 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(s, "s3cret") {
		t.Errorf("error text %.1000q", s)
	}
}
