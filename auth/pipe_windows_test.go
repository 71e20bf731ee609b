package auth

import "testing"

func pipe(t testing.TB) func(dir string) string {
	return func(string) string { t.Skip("no pipes in directories"); return "" }
}
