package gateway

import (
	"regexp"
	"slices"
	"strings"
)

// personName is how people are called who signed in by a browser, in lower case:
// provider, login and ID, as [auth.Person.Name] writes them.
var personName = regexp.MustCompile(`^([a-z0-9][a-z0-9.-]*:)([a-z0-9_][a-z0-9._-]*)(#.+)$`)

// lastingName is a guest's name, in lower case, without what it may change: of
// provider:login#ID the login.
func lastingName(name string) string {
	name = strings.ToLower(name)
	if m := personName.FindStringSubmatch(name); m != nil {
		return m[1] + m[3]
	}
	return name
}

// namesOf are all that a guest can be meant by: who signs in as an account is also
// called what its keys are.
func namesOf(name string) []string {
	names := []string{lastingName(name)}
	if m := personName.FindStringSubmatch(strings.ToLower(name)); m != nil {
		names = append(names, m[1]+m[2])
	}
	return names
}

// means reports whether a name that an operator gave is a guest's.
func means(given, name string) bool { return slices.Contains(namesOf(name), lastingName(given)) }
