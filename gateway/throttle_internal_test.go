package gateway

import (
	"fmt"
	"testing"
)

// TestCrowdIsPushedOut: with no place left, a newcomer takes the oldest one of the
// address that uses most of its share; no address pushes out one that has less.
func TestCrowdIsPushedOut(t *testing.T) {
	table := newThrottle()
	l := Limits{Unauthenticated: 10, UnauthenticatedPerSource: 4}
	var cut []string
	names := make(map[string]func())
	enter := func(source string, name string) string {
		leave, reason := table.enter(addressOf(source), l, func() { cut = append(cut, name) })
		names[name] = leave
		return reason
	}
	fill := func(source string, n int) {
		for i := range n {
			if reason := enter(source, fmt.Sprintf("%s %d", source, i)); reason != "" {
				t.Fatal(reason)
			}
		}
	}
	wantCut := func(want ...string) {
		t.Helper()
		if fmt.Sprint(cut) != fmt.Sprint(want) {
			t.Errorf("cut: %v, want %v", cut, want)
		}
		cut = nil
	}
	defer table.trust(addressOf("192.0.2.1"))()
	fill("192.0.2.1", 4) // of 5, for its tunnel
	fill("192.0.2.2", 4)
	fill("192.0.2.3", 2)
	if reason := enter("192.0.2.2", "one more"); reason != "source" {
		t.Errorf("beyond the share: %q", reason)
	}
	wantCut()
	enter("192.0.2.9", "alice")
	wantCut("192.0.2.2 0")
	enter("192.0.2.9", "alice again")
	wantCut("192.0.2.1 0") // 4 of 5 and not 3 of 4
	names["192.0.2.2 0"]() // was given back
	names["192.0.2.1 3"]()
	names["192.0.2.1 3"]()
	if table.total() != 9 {
		t.Errorf("%d are signing in", table.total())
	}
	enter("192.0.2.2", "room")
	wantCut()
	if reason := enter("192.0.2.2", "x"); reason != "source" || len(cut) != 0 {
		t.Errorf("%q, cut %v", reason, cut)
	}
	for i := range 100 {
		enter(fmt.Sprintf("198.51.100.%d", i), "crowd")
	}
	if table.total() != 10 {
		t.Errorf("%d are signing in", table.total())
	}
	if reason := enter("198.51.100.99", "a second"); reason != "all" && table.total() != 10 {
		t.Errorf("%q", reason)
	}
	for source, places := range table.sources {
		if len(places) == 0 {
			t.Errorf("%s is not forgotten", source)
		}
	}
}
