// Package ci knows what the job of a CI system is told by its environment, and how that system wants its log written.
//
//	system := ci.Detect(os.Getenv)
//	io.WriteString(log, system.Section("Stagedoor", time.Now(), "ssh task-1234@terminal.example.com"))
//
// It reads variables that the systems document and nothing else: no files, no network. What it does not know is absent and never
// guessed.
package ci

import (
	"strconv"
	"time"
)

// Lookup returns the value of a variable, "" where it is not set, as os.Getenv does.
type Lookup func(name string) string

// DebugVariable asks for a terminal in any system, and on a machine without one: STAGEDOOR_DEBUG=1.
const DebugVariable = "STAGEDOOR_DEBUG"

// A System is the CI system that a job runs in, with what it says of the job.
type System struct {
	// Name is what people call it; empty when there is none.
	Name string
	// Job is the job's name, and Page its address in a browser. Each may be empty.
	Job, Page string
	// Debug tells that whoever started this run asked for a terminal in it, by the system's own switch or by DebugVariable.
	Debug bool
	// Switch says in a sentence which button asks for it; empty in a system that has none of its own.
	Switch string
	// Deadline is when the system ends the job; zero when it does not say. Where it tells how long jobs may take and not when
	// this one began, it counts from Detect: that is too late by as long as the job had run by then.
	Deadline time.Time
	// SummaryFile is a file to which Markdown for the job's page is appended; empty without.
	SummaryFile string
	// ID is different for each job that can run on one machine at the same time; empty where nothing says which it is.
	ID string

	dialect dialect
	annotate
}

// annotate is the program that puts Markdown beside a build.
type annotate struct {
	program string
	context string // one for each job, so that parallel ones do not overwrite each other
}

// Annotation returns the command that shows Markdown, which it reads from its standard input, on the page of the build, in the
// place of what it showed there before. Nil in systems without one.
func (s *System) Annotation() []string {
	if s.program == "" {
		return nil
	}
	return []string{s.program, "annotate", "--style", "info", "--context", s.context}
}

// MetaData returns the command that keeps a value of the build where its other jobs, and the API, find it. Nil in systems without
// one.
func (s *System) MetaData(name, value string) []string {
	if s.program == "" {
		return nil
	}
	return []string{s.program, "meta-data", "set", name, value}
}

// detectors are asked in turn. Each returns nil when it is not the one.
var detectors = []func(Lookup, time.Time) *System{gitHub, gitLab, buildkite, circleCI, cirrus, jenkins}

// Detect tells the system by its variables. It never returns nil: on a machine without any the System has no name.
func Detect(get Lookup) *System { return DetectAt(get, time.Now()) }

// DetectAt is Detect at some time.
func DetectAt(get Lookup, now time.Time) *System {
	s := &System{}
	for _, detect := range detectors {
		if found := detect(get, now); found != nil {
			s = found
			break
		}
	}
	s.Debug = s.Debug || truth(get(DebugVariable))
	return s
}

// truth reads a switch. What is no word for it counts as on: somebody has set it.
func truth(value string) bool {
	on, err := strconv.ParseBool(value)
	return value != "" && (err != nil || on)
}
