package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stagedoor/stagedoor/auth"
)

// shortPermissions are the names of all permissions as people write them: pty
// for permit-pty, exec for permit-exec@stagedoor.
func shortPermissions() []string {
	var names []string
	for name := range auth.FullPermissions().Extensions {
		if short, ok := shortPermission(name); ok {
			names = append(names, short)
		}
	}
	slices.Sort(names)
	return names
}

func shortPermission(name string) (string, bool) {
	name, ok := strings.CutPrefix(name, "permit-")
	return strings.TrimSuffix(name, "@stagedoor"), ok
}

// parsePermission returns the full name of a permission, given in full or short.
func parsePermission(s string) (string, error) {
	for name := range auth.FullPermissions().Extensions {
		short, ok := shortPermission(name)
		if ok && (strings.EqualFold(s, short) || strings.EqualFold(s, name)) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%q is no permission; there are %s", s, strings.Join(shortPermissions(), ", "))
}
