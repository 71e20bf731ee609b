// Package wildcard compares values with the patterns that operators write.
package wildcard

import "strings"

// Match compares a value that is not empty: * in the pattern stands for any
// characters, slashes too. It takes at most len(pattern)*len(value) steps.
func Match(pattern, value string) bool {
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
