package issuer

import (
	"fmt"
	"maps"
	"slices"

	"github.com/stagedoor/stagedoor/internal/wildcard"
)

// unmet returns why claims do not meet rules, or nil. It does not say what the
// rules are: that is between the gateway and its operator.
func unmet(rules map[string][]string, c claims) error {
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		value, err := c.text(name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(rules[name], func(pattern string) bool { return wildcard.Match(pattern, value) }) {
			return fmt.Errorf("claim %s is %.200q, and jobs with that are not admitted here: ask the operator of the gateway", name, value)
		}
	}
	return nil
}
