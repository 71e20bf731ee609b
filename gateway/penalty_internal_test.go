package gateway

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/tunnel"
)

func addressOf(text string) netip.Prefix { return sourceOf(netip.MustParseAddr(text)) }

// TestPenaltiesAddUpAndPass, as with sshd: up to a maximum, and whoever is shut out
// stays so until nothing is left.
func TestPenaltiesAddUpAndPass(t *testing.T) {
	table := newPenaltyTable()
	start := time.Now()
	mallory, other := addressOf("192.0.2.1"), addressOf("192.0.2.2")
	charge := func(at, cost time.Duration) time.Duration {
		return table.charge(mallory, cost, 15*time.Second, time.Minute, start.Add(at))
	}
	want := func(at time.Duration, out bool) {
		t.Helper()
		if got := table.shutsOut(mallory, start.Add(at)); got != out {
			t.Errorf("after %v: shut out %v", at, got)
		}
		if table.shutsOut(other, start.Add(at)) {
			t.Errorf("after %v: another address is shut out", at)
		}
	}
	charge(0, 10*time.Second)
	charge(4*time.Second, 8*time.Second) // 6 of the 10 are left
	want(4*time.Second, false)
	if d := charge(4*time.Second, 2*time.Second); d != 16*time.Second {
		t.Errorf("shut out for %v", d)
	}
	want(4*time.Second, true)
	want(19*time.Second, true) // one second is left
	if d := charge(19*time.Second, time.Hour); d != 0 {
		t.Errorf("shut out anew for %v", d)
	}
	want(78*time.Second, true)
	want(80*time.Second, false)
	if len(table.sources)+len(table.order) != 0 {
		t.Error("what has passed is not forgotten")
	}
	for _, charged := range []time.Duration{table.charge(mallory, -1, 0, time.Hour, start), table.charge(mallory, time.Hour, 0, -1, start),
		table.charge(netip.Prefix{}, time.Hour, 0, time.Hour, start)} {
		if charged != 0 || len(table.order) != 0 {
			t.Errorf("shut out for %v", charged)
		}
	}
}

// TestPenaltiesAreBounded: who owns many addresses fills the table, and pushes out
// those with the least to pay.
func TestPenaltiesAreBounded(t *testing.T) {
	table := newPenaltyTable()
	table.most = 100
	now := time.Now()
	table.charge(addressOf("192.0.2.1"), time.Hour, time.Minute, time.Hour, now)
	for i := range 10000 {
		table.charge(addressOf(fmt.Sprintf("2001:db8:0:%x::1", i)), time.Second, time.Minute, time.Hour, now)
	}
	if len(table.sources) != 100 || len(table.order) != 100 || !table.shutsOut(addressOf("192.0.2.1"), now) {
		t.Errorf("%d and %d entries", len(table.sources), len(table.order))
	}
	for i, p := range table.order {
		if p.index != i || table.sources[p.source] != p {
			t.Fatal("heap and map differ")
		}
	}
	if !table.order[0].until.Equal(now.Add(time.Second)) {
		t.Error("the heap is out of order")
	}
}

// TestPenaltyOfNeighbours: an IPv6 customer is a /64.
func TestPenaltyOfNeighbours(t *testing.T) {
	table := newPenaltyTable()
	now := time.Now()
	table.charge(addressOf("2001:db8::1"), time.Hour, time.Minute, time.Hour, now)
	if !table.shutsOut(addressOf("2001:db8::ffff"), now) || table.shutsOut(addressOf("2001:db8:0:1::1"), now) {
		t.Error("a /64 is not what counts")
	}
}

func TestPenaltyDefaults(t *testing.T) {
	p := Penalties{}.withDefaults()
	for i, v := 0, reflect.ValueOf(p); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s has no default", v.Type().Field(i).Name)
		}
	}
	for text, exempt := range map[string]bool{"127.1.2.3": true, "::1": true, "192.0.2.1": false, "::2:0:0:0:1": false} {
		if p.exempts(addressOf(text)) != exempt {
			t.Errorf("%s: exempt %v", text, !exempt)
		}
	}
	if p = (Penalties{Max: -1, Exempt: []netip.Prefix{}}).withDefaults(); p.Max != -1 || p.exempts(addressOf("127.0.0.1")) {
		t.Error("what was set is not kept")
	}
	for o := noSignIn; o <= crashed; o++ {
		if (p.cost(o) == 0) != (o == noOffence) {
			t.Errorf("offence %d costs %v", o, p.cost(o))
		}
	}
}

func TestOffencesOfHosts(t *testing.T) {
	for code, want := range map[string]offence{
		tunnel.CodeBadToken: refusedSignIn, tunnel.CodeExpired: refusedSignIn, tunnel.CodeLimit: noOffence, tunnel.CodeDraining: noOffence,
		tunnel.CodeUnavailable: noOffence, tunnel.CodeHeld: noOffence, tunnel.CodeReplaced: noOffence,
	} {
		if got := hostOffence(fmt.Errorf("refused: %w", &tunnel.Refusal{Code: code})); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}
