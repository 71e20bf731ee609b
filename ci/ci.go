// Package ci has what a person pastes into the configuration of a CI system, and the
// ready parts that this refers to:
//
//	gitlab, err := ci.Find("gitlab")
//	fmt.Print(gitlab.For("terminal.example.com"))
//
// All of them are written for a gateway called terminal.example.com. The tests in
// test/ci run them as the systems do, and compare them with the pages in docs/ci.
package ci

import (
	"embed"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

//go:embed snippets gitlab/templates/stagedoor.yml
var files embed.FS

// GitLabTemplate is the file that the snippet for GitLab includes, for a gateway:
// see [Snippet.For].
func GitLabTemplate(gateway string) string {
	return fill(read("gitlab/templates/stagedoor.yml"), gateway)
}

// A Snippet is what one CI system takes.
type Snippet struct {
	ID     string // names its page, docs/ci/ID.md, too
	System string // as people call it
	File   string // where it belongs; empty: into the job's commands
	Asks   string // how a person asks for a terminal in a run, in a sentence
	text   string
}

// All returns the snippets, those of the systems that most people have first.
func All() []Snippet {
	all := []Snippet{
		{ID: "github", System: "GitHub Actions", File: ".github/workflows/test.yml", Asks: `Press “Re-run jobs” and tick “Enable debug logging”.`, text: "github.yml"},
		{ID: "gitlab", System: "GitLab", File: ".gitlab-ci.yml", Asks: `Press “New pipeline” and give it the variable STAGEDOOR_DEBUG with the value 1.`, text: "gitlab.yml"},
		{ID: "buildkite", System: "Buildkite", File: ".buildkite/pipeline.yml", Asks: `Press “New Build” and set STAGEDOOR_DEBUG=1 under its environment variables.`, text: "buildkite.yml"},
		{ID: "circleci", System: "CircleCI", File: ".circleci/config.yml", Asks: `Every failed run of the job waits for you.`, text: "circleci.yml"},
		{ID: "jenkins", System: "Jenkins", File: "Jenkinsfile", Asks: `Every failed build waits for you.`, text: "Jenkinsfile"},
		{ID: "cirrus", System: "Cirrus CI", File: ".cirrus.yml", Asks: `Every failed task waits for you.`, text: "cirrus.yml"},
		{ID: "shell", System: "Any other", Asks: `The command runs as it did before; when it fails, the job waits for you.`, text: "shell.sh"},
	}
	for i := range all {
		all[i].text = read("snippets/" + all[i].text)
	}
	return all
}

// Find returns the snippet with an ID.
func Find(id string) (Snippet, error) {
	for _, s := range All() {
		if s.ID == id {
			return s, nil
		}
	}
	return Snippet{}, fmt.Errorf("no snippet is called %q", id)
}

// For returns the text for a gateway: a host, with a port unless that is 443, as
// [tunnel.ParseAddress] accepts it, so that it needs no quoting.
//
// [tunnel.ParseAddress]: https://pkg.go.dev/github.com/stagedoor/stagedoor/tunnel#ParseAddress
func (s Snippet) For(gateway string) string { return fill(s.text, gateway) }

const example = "terminal.example.com"

// audience finds the lines that name what ID tokens are for, which is a gateway
// whatever its port.
var audience = regexp.MustCompile(`(?m)^.*\baud(ience)?\b.*$`)

func fill(text, gateway string) string {
	host := gateway
	if u, err := url.Parse("https://" + gateway); err == nil && u.Port() != "" {
		host = strings.TrimSuffix(gateway, ":"+u.Port())
	}
	text = audience.ReplaceAllStringFunc(text, func(line string) string { return strings.ReplaceAll(line, example, host) })
	if strings.HasPrefix(gateway, "[") { // which begins a list in YAML
		text = strings.ReplaceAll(text, ": "+example+"\n", `: "`+gateway+"\"\n")
	}
	return strings.ReplaceAll(text, example, gateway)
}

// read panics for want of a file that was not embedded, which is a defect.
func read(name string) string {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return string(data)
}
