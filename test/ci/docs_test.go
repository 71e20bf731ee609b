package ci_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/stagedoor/stagedoor/ci"
)

// TestPagesHaveTheSnippets that are tested, and not some that were once like them.
func TestPagesHaveTheSnippets(t *testing.T) {
	t.Parallel()
	for _, s := range ci.All() {
		page := part(t, "docs/ci/"+s.ID+".md")
		if !strings.Contains(page, "\n"+s.For("terminal.example.com")+"```\n") {
			t.Errorf("docs/ci/%s.md has another snippet than\n%s", s.ID, s.For("terminal.example.com"))
		}
		if !strings.Contains(part(t, "docs/ci/README.md"), "("+s.ID+".md)") {
			t.Errorf("docs/ci/README.md does not lead to %s", s.ID)
		}
	}
	var lines []string
	for line := range strings.Lines(part(t, "ci/runner-hooks/gitlab-pre-build.sh")) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if hook := strings.Join(lines, ""); !strings.Contains(part(t, "docs/ci/runners.md"), "'''\n"+hook+"'''\n") {
		t.Errorf("docs/ci/runners.md has another pre_build_script than\n%s", hook)
	}
}

// TestPagesHold: what they show is YAML, and what they link to is there.
func TestPagesHold(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(root, "docs/ci/*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal(err)
	}
	for _, file := range pages {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
			var v any
			if err := yaml.Unmarshal([]byte(block[1]), &v); err != nil {
				t.Errorf("%s: %v in\n%s", file, err, block[1])
			}
		}
		for _, link := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(string(data), -1) {
			path, anchor, _ := strings.Cut(link[1], "#")
			target, err := os.ReadFile(filepath.Join(filepath.Dir(file), path))
			if err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if anchor != "" && !strings.Contains(strings.ToLower(string(target)), "\n## "+strings.ReplaceAll(anchor, "-", " ")+"\n") {
				t.Errorf("%s: there is no heading for %s", file, link[1])
			}
		}
	}
}

// TestSnippetsForAnotherPort: an audience has none.
func TestSnippetsForAnotherPort(t *testing.T) {
	t.Parallel()
	for gateway, want := range map[string]string{
		"a.example.com":      "https://a.example.com #",
		"a.example.com:8443": "https://a.example.com #",
		"[2001:db8::1]:8443": "https://[2001:db8::1] #",
		"[2001:db8::1]":      "https://[2001:db8::1] #",
	} {
		template := ci.GitLabTemplate(gateway)
		if !strings.Contains(template, want) || !strings.Contains(template, "default: "+gateway+"\n") && !strings.Contains(template, `default: "`+gateway) || strings.Contains(template, "terminal.example.com") {
			t.Errorf("for %s:\n%s", gateway, template)
		}
		for _, s := range ci.All() {
			text := s.For(gateway)
			if !strings.HasSuffix(s.File, ".yml") {
				continue
			}
			var v any
			if err := yaml.Unmarshal([]byte(text), &v); err != nil || !strings.Contains(text, gateway) && !strings.Contains(text, "[2001:db8::1]") {
				t.Errorf("for %s: %v in\n%s", gateway, err, text)
			}
		}
	}
}
