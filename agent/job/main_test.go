//go:build unix

package job_test

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/agent/job"
)

// TestMain makes this program a guard, or a process that starts a job with one, for the tests that end it from outside.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "guard":
		job.RunGuard(os.Stdin, 100*time.Millisecond)
		return
	case os.Getenv("JOB_TEST_ROLE") == "parent":
		parent()
	}
	goleak.VerifyTestMain(m)
}
