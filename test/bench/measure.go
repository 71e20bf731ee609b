//go:build unix

package main

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A figure is something that is measured.
type figure struct {
	name   string
	unit   string
	higher bool // is better
}

// A reading is one measurement of a figure; NaN: it could not be measured, or
// the contender has no such part.
type reading struct {
	figure
	value float64
}

// A measure yields readings of one entrant, the same figures each time.
type measure struct {
	name string
	take func(context.Context, *lab, *entrant, *options) ([]reading, error)
}

func allMeasures() []measure {
	return []measure{{"bulk", takeBulk}, {"echo", takeEcho}, {"connect", takeConnect}}
}

func measureNames() []string {
	var names []string
	for _, m := range allMeasures() {
		names = append(names, m.name)
	}
	return names
}

// samples are the readings of all rounds.
type samples struct {
	figures []figure                        // in the order in which they were first read
	values  map[string]map[string][]float64 // by figure and contender, one for each round
}

func (s *samples) add(contender string, r reading) {
	if s.values[r.name] == nil {
		s.figures = append(s.figures, r.figure)
		s.values[r.name] = make(map[string][]float64)
	}
	s.values[r.name][contender] = append(s.values[r.name][contender], r.value)
}

// measureAll takes every measure of every entrant in turn, in each round with
// another one first.
func measureAll(ctx context.Context, l *lab, entrants []*entrant, measures []measure, o *options) (*samples, error) {
	s := &samples{values: make(map[string]map[string][]float64)}
	for round := range o.rounds {
		l.say("round %d of %d", round+1, o.rounds)
		for _, m := range measures {
			for i := range entrants {
				e := entrants[(i+round)%len(entrants)]
				readings, err := m.take(ctx, l, e, o)
				if err != nil {
					return nil, fmt.Errorf("%s of %s: %w", m.name, e.name(), err)
				}
				for _, r := range readings {
					s.add(e.name(), r)
				}
			}
		}
	}
	return s, nil
}

func takeBulk(ctx context.Context, l *lab, e *entrant, o *options) ([]reading, error) {
	var readings []reading
	for _, d := range []direction{download, upload} {
		t, err := e.transfer(ctx, l, d, int64(o.size), false)
		if err != nil {
			return nil, err
		}
		mebibytes := float64(o.size) / (1 << 20)
		perGibibyte := 1024 / mebibytes
		name := string(d)
		readings = append(readings,
			reading{figure{name, "MiB/s", true}, mebibytes / t.took.Seconds()},
			reading{figure{name + " cpu client", "s/GiB", false}, t.client * perGibibyte},
			reading{figure{name + " cpu gateway", "s/GiB", false}, t.gateway * perGibibyte},
			reading{figure{name + " cpu host", "s/GiB", false}, t.host * perGibibyte},
			reading{figure{name + " cpu all", "s/GiB", false}, t.allCPU() * perGibibyte},
		)
	}
	return readings, nil
}

func takeEcho(ctx context.Context, _ *lab, e *entrant, o *options) ([]reading, error) {
	all, err := e.echoAll(ctx, o.echoes)
	if err != nil {
		return nil, err
	}
	var readings []reading
	for i, kind := range echoKinds {
		times := inUnits(all[i], time.Microsecond)
		readings = append(readings,
			reading{figure{kind.name + " p50", "µs", false}, quantile(times, 0.50)},
			reading{figure{kind.name + " p99", "µs", false}, quantile(times, 0.99)},
		)
	}
	return readings, nil
}

// takeConnect runs `ssh TASK true` again and again, from exec to exit.
func takeConnect(ctx context.Context, _ *lab, e *entrant, o *options) ([]reading, error) {
	var times []time.Duration
	for range o.connects {
		began := time.Now()
		if err := e.runTrue(ctx); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return []reading{{figure{"ssh true", "ms", false}, quantile(inUnits(times, time.Millisecond), 0.5)}}, nil
}

func inUnits(times []time.Duration, unit time.Duration) []float64 {
	numbers := make([]float64, len(times))
	for i, t := range times {
		numbers[i] = float64(t) / float64(unit)
	}
	return numbers
}

// known says whether anything was measured at all.
func known(values []float64) bool {
	return !math.IsNaN(summarize(values).Median)
}
