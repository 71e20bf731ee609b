package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/cmd/internal/cli"
)

// holdFlags are how long a grant has a job held that has failed.
type holdFlags struct {
	wait, grace, hard time.Duration
}

func (h *holdFlags) add(f *pflag.FlagSet) {
	f.DurationVar(&h.wait, "hold-wait", 0, "how long a job that has failed waits for its first guest (default what the job says)")
	f.DurationVar(&h.grace, "hold-grace", 0, "how long it stays after the last one has left (default what the job says)")
	f.DurationVar(&h.hard, "hold-hard", 0, "how long it is held in all, whatever the job says")
}

// grant returns what was set, nil if nothing was.
func (h *holdFlags) grant(f *pflag.FlagSet) (*auth.GrantHold, error) {
	var granted auth.GrantHold
	for name, into := range map[string]struct {
		value *time.Duration
		field **time.Duration
	}{
		"hold-wait":  {&h.wait, &granted.Wait},
		"hold-grace": {&h.grace, &granted.Grace},
		"hold-hard":  {&h.hard, &granted.Hard},
	} {
		if !f.Changed(name) {
			continue
		}
		if *into.value < 0 {
			return nil, cli.UsageError("--%s %v: it is negative", name, *into.value)
		}
		*into.field = into.value
	}
	if granted == (auth.GrantHold{}) {
		return nil, nil
	}
	return &granted, nil
}
