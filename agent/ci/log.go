package ci

import (
	"fmt"
	"strings"
	"time"
)

// A dialect is how a system's log marks what belongs together.
type dialect int

const (
	plainDialect dialect = iota
	gitHubDialect
	gitLabDialect
	buildkiteDialect
)

// Section returns lines for the log as a part of its own under a title, seen without a click. All go through [Clean]. Nothing
// stands before a line or around it: somebody is going to copy one. The result ends with a newline.
func (s *System) Section(title string, now time.Time, lines ...string) string {
	return s.part(title, false, now, lines)
}

// Details is Section for lines that few want to read: folded where the log can do that.
func (s *System) Details(title string, now time.Time, lines ...string) string {
	return s.part(title, true, now, lines)
}

func (s *System) part(title string, folded bool, now time.Time, lines []string) string {
	begin, end := s.marks(Clean(title), folded, now)
	var b strings.Builder
	b.WriteString(begin)
	for _, line := range lines {
		b.WriteString(Clean(line) + "\n")
	}
	b.WriteString(end)
	return b.String()
}

// marks are what stands before a part and after it.
func (s *System) marks(title string, folded bool, now time.Time) (begin, end string) {
	switch {
	case s.dialect == gitHubDialect && folded:
		// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#grouping-log-lines
		// A group is closed until somebody clicks on it, so a part that is to be seen cannot be one.
		return "::group::" + escapeData(title) + "\n", "::endgroup::\n"
	case s.dialect == gitLabDialect:
		// https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
		name, option := fmt.Sprintf("stagedoor_%d", now.UnixNano()), ""
		if folded {
			option = "[collapsed=true]"
		}
		return fmt.Sprintf("\x1b[0Ksection_start:%d:%s%s\r\x1b[0K%s\n", now.Unix(), name, option, title),
			fmt.Sprintf("\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", now.Unix(), name)
	case s.dialect == buildkiteDialect && folded:
		// https://buildkite.com/docs/pipelines/configure/managing-log-output#grouping-log-output
		return "--- " + title + "\n", ""
	case s.dialect == buildkiteDialect:
		return "+++ " + title + "\n", ""
	}
	return title + "\n", ""
}

// Notice returns what puts a text on the page of the run, beside the log; "" in a system that has no such thing. Both go through
// [Clean].
func (s *System) Notice(title, text string) string {
	if s.dialect != gitHubDialect {
		return ""
	}
	// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#setting-a-notice-message
	return fmt.Sprintf("::notice title=%s::%s\n", escapeProperty(Clean(title)), escapeData(Clean(text)))
}

var (
	dataEscapes     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	propertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func escapeData(s string) string     { return dataEscapes.Replace(s) }
func escapeProperty(s string) string { return propertyEscapes.Replace(s) }
