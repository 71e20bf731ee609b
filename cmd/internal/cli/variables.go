package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// serviceVariable matches what Kubernetes sets in every pod for a service whose
// name begins with stagedoor, and what this project's own tests are told by.
var serviceVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?$|^STAGEDOOR_(SKIPS$|TEST_)`)

// UnknownVariables returns the STAGEDOOR_* variables that are set, not empty and
// not among known, in order.
func UnknownVariables(known []string) []string {
	var unknown []string
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "STAGEDOOR_") && value != "" && !slices.Contains(known, name) && !serviceVariable.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}
