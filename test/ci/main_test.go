// Package ci_test runs the ready parts for CI systems as those systems run them:
// with the variables that they document, against the real programs.
package ci_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(distDir)
		os.Exit(status)
	}))
}
