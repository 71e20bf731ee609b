package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

func TestTriggeringActorIsDeclared(t *testing.T) {
	const label = "github.triggering-actor"
	full := map[string]string{}
	for i := range maxLabels {
		full[fmt.Sprint(i)] = "x"
	}
	for name, test := range map[string]struct {
		actions, actor string
		given, want    map[string]string
	}{
		"in a job":          {"true", "bob", nil, map[string]string{label: "bob"}},
		"beside others":     {"true", "bob", map[string]string{"a": "b"}, map[string]string{"a": "b", label: "bob"}},
		"elsewhere":         {"", "bob", map[string]string{"a": "b"}, map[string]string{"a": "b"}},
		"nobody":            {"true", "", nil, nil},
		"not printable":     {"true", "b\nob", nil, nil},
		"long":              {"true", strings.Repeat("b", 257), nil, nil},
		"given by the user": {"true", "bob", map[string]string{label: "carol"}, map[string]string{label: "carol"}},
		"no room":           {"true", "bob", full, full},
	} {
		t.Setenv("GITHUB_ACTIONS", test.actions)
		t.Setenv("GITHUB_TRIGGERING_ACTOR", test.actor)
		given := maps.Clone(test.given)
		if got := (&config{labels: test.given}).allLabels(); !maps.Equal(got, test.want) || !maps.Equal(test.given, given) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
