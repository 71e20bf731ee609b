package issuer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// unmet returns why claims do not meet rules, or nil. It does not say what the
// rules are: that is between the gateway and its operator.
func unmet(rules map[string][]string, c claims) error {
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		value, err := c.text(name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(rules[name], func(pattern string) bool { return matches(pattern, value) }) {
			return fmt.Errorf("claim %s is %.200q, and jobs with that are not admitted here: ask the operator of the gateway", name, value)
		}
	}
	return nil
}

// matches compares a value that is not empty: * in the pattern stands for any
// characters, slashes too. It takes at most len(pattern)*len(value) steps.
func matches(pattern, value string) bool {
	if value == "" {
		return false
	}
	first, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == value
	}
	value, ok := strings.CutPrefix(value, first)
	if !ok {
		return false
	}
	for {
		part, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(value, part)
		}
		// The first place is as good as any: what follows it is longest.
		i := strings.Index(value, part)
		if i < 0 {
			return false
		}
		value, rest = value[i+len(part):], more
	}
}
