package auth

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestGrantLimits: what is written is read again, and what might be meant as a
// limit and is none is an error.
func TestGrantLimits(t *testing.T) {
	for text, want := range map[string]GrantLimits{
		`{}`:                    {},
		`{"guests": 3}`:         {Guests: 3},
		`{"sessions": 10}`:      {Sessions: 10},
		`{"session_time":"1h"}`: {SessionTime: time.Hour},
		`{"guests":1,"sessions":2,"session_time":"1h30m5s"}`: {1, 2, 90*time.Minute + 5*time.Second},
	} {
		var g Grant
		if err := json.Unmarshal([]byte(`{"limits": `+text+`}`), &g); err != nil || g.Limits != want || g.Check() != nil {
			t.Errorf("%s is read as %+v: %v, %v", text, g.Limits, err, g.Check())
		}
		data, err := json.Marshal(g)
		var again Grant
		if err != nil || json.Unmarshal(data, &again) != nil || again.Limits != want {
			t.Errorf("%s is written as %s: %v", text, data, err)
		}
	}
	for _, text := range []string{
		`[]`, `3`, `"3"`, `{"guests": 0}`, `{"guests": -1}`, `{"guests": 1.5}`, `{"guests": "3"}`, `{"guests": 1000001}`, `{"Guests": 3}`,
		`{"sessions": 0}`, `{"session_time": 60}`, `{"session_time": "0s"}`, `{"session_time": "-1h"}`, `{"session_time": "1ms"}`, `{"session_time": "1d"}`,
		`{"guests": 1, "guests": 2}`, `{"hosts": 3}`,
	} {
		var g Grant
		err := json.Unmarshal([]byte(`{"limits": `+text+`}`), &g)
		if err == nil {
			t.Errorf("%s is read as %+v", text, g.Limits)
			continue
		}
		if !strings.HasPrefix(err.Error(), "grant: limits: ") {
			t.Errorf("%s: %v", text, err)
		}
		testenv.CheckText(t, err)
	}
	for _, l := range []GrantLimits{{Guests: -1}, {Sessions: -1}, {SessionTime: -1}, {SessionTime: time.Millisecond}} {
		g := Grant{Limits: l}
		if err := g.Check(); err == nil || !strings.HasPrefix(err.Error(), "grant: limits: ") {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// TestLimitsOutliveTheToken: an agent that comes back by its renewal is held to the
// same limits.
func TestLimitsOutliveTheToken(t *testing.T) {
	key, agent := newKey(t), newKey(t)
	limits := GrantLimits{Guests: 1, SessionTime: time.Minute}
	raw, err := MintRenewal(key, Renewal{Task: "task-1", AgentKey: publicOf(agent), IssuedAt: noon, Grant: Grant{Limits: limits}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := VerifyRenewal([]ed25519.PublicKey{publicOf(key)}, raw, noon)
	if err != nil || r.Grant.Limits != limits {
		t.Errorf("%+v: %v", r, err)
	}
}

// TestPlaces: no more are taken than there are, whoever waits gets the one that is
// given back, and giving one back twice makes no second one.
func TestPlaces(t *testing.T) {
	var p Places
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	first, ok := p.Take(gone, 2)
	second, also := p.Take(gone, 2)
	if !ok || !also || p.Taken() != 2 {
		t.Fatalf("%v, %v, %d taken", ok, also, p.Taken())
	}
	if _, ok := p.Take(gone, 2); ok {
		t.Error("a third one was taken")
	}
	if give, ok := p.Take(gone, 0); !ok {
		t.Error("there is no limit, and no place")
	} else {
		give()
	}
	var waiting sync.WaitGroup
	got := make(chan func())
	waiting.Go(func() {
		give, _ := p.Take(t.Context(), 2)
		got <- give
	})
	first()
	third := <-got
	waiting.Wait()
	if third == nil {
		t.Fatal("nobody got the place that was given back")
	}
	first()
	if _, ok := p.Take(gone, 2); ok {
		t.Error("a place that was given back twice was two")
	}
	second()
	third()
	if n := p.Taken(); n != 0 {
		t.Errorf("%d are still taken", n)
	}
}
