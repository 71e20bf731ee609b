// Package clients runs SSH clients that others wrote against the real binaries,
// each with every feature that it has. What works ends up as the table in
// docs/clients.md: each cell of it is a test here. After a change,
//
//	go test ./test/clients -run TestMatrix -update
//
// writes that file anew, and without -update the test fails where it differs from
// what was seen.
//
// A client is a [client]: a name and, for each [feature], either a check or the
// reason why there is none. A check ([check]) says what has to come out and
// takes the client's command line from a function, so that all clients are held
// to the same.
package clients

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

var update = flag.Bool("update", false, "write docs/clients.md from what was seen")

// binaries is the directory of stagedoor and stagedoor-agent, built with the race
// detector.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	// Most of a cell is waiting: for a program to start, for an idle connection.
	if runtime.GOMAXPROCS(0) < 4 {
		flag.Set("test.parallel", "4")
	}
	dir, err := testenv.Build("-race")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func stagedoor(program string) string { return filepath.Join(binaries, program) }

// TestMatrix runs every cell of docs/clients.md, and compares that file with what
// it saw. The cells of a row run side by side.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	seen := newResults()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) { c.test(t, w, seen) })
	}
	compareTable(t, seen)
}
